"""Rendered takes in place of Ego-Exo4D: a head-worn camera and static cameras see objects on a table."""
