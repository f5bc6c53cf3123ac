"""A rendered stand-in for Ego-Exo4D: textured solids on a table, seen by a head-worn and several static cameras."""
