"""Small data for tests, one module for each kind."""
