"""What is under a prefix: names, signatures, findings, the filesystem, the scan."""
