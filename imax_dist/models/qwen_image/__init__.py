"""Qwen-Image: a double-stream transformer with centred positions; Qwen2.5-VL reads its prompts."""
