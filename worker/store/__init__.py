"""The private, immutable store of revisions."""
