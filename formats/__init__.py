"""What lies on disk, one module for each format, checked where it is read."""
