"""Pixels to files, whole or not at all, with the recipe inside; alone in importing PIL and libvips."""
