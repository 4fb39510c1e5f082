"""The catalog as the leading watcher keeps it, and the lease."""
