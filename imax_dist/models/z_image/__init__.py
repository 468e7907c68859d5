"""Z-Image: a single-stream transformer with refiners, learned padding tokens and Qwen3 as its reader."""
