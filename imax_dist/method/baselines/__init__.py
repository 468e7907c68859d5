"""What the paper compares its guidance with (Sec. 3.4), each a switch of its own."""
