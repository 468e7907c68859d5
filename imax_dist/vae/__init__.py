"""The VAE at any size: diffusers' AutoencoderKL walked row by row, the same numbers as its own forward."""
