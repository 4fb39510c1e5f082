"""What to examine, when, and with how many threads."""
