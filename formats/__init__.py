"""The formats of files, with one module for each format; a file is checked where it is read."""
