"""Lumina-Image-2.0 on diffusers' own classes: caption and image in one sequence, keys in groups."""
