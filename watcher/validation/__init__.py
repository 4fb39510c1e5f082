"""Whether a directory is a complete, valid adapter."""
