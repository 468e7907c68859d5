"""FLUX.1 (dev, schnell and anything of their architecture) on diffusers' own classes, unmodified."""
