"""What the testbed measures on a picture as it is, each with its interval."""
