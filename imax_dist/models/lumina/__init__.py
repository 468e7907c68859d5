"""Lumina-Next on diffusers' own classes, unmodified: cross-attention to a Gemma caption."""
