"""Stable Diffusion 3 and 3.5: absolute positions, so the method's part for rotary ones has no place here."""
