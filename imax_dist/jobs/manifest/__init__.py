"""What is to be made: a manifest in any of its forms, read with all of its mistakes at once."""
