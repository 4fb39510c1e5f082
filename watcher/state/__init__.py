"""What is known of each name, and what to write to the catalog."""
