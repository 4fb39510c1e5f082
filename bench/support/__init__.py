"""What benchmarks of serving share."""
