"""FLUX.2 (dev and klein): FLUX's two kinds of blocks, four position axes, batch-normalised latents."""
