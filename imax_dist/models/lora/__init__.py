"""LoRA: what its files hold, and how that is merged into a network's weights."""
