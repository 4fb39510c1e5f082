"""What is known of each name, and what the catalog should hold. Pure."""
