"""One file a network: its facts, prompt, positions, attention, one forward pass, and how it is loaded."""
