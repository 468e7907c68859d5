"""Pixels to files: print files, their recipe, and whether they match."""
