"""The worker and the catalog: follow it, report to it, and the embedded default."""
