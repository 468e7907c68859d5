"""Pixels to files: whole or not at all, with the recipe inside. The only place that imports PIL or tifffile."""
