"""One file a kind of resource; each has a ``router``."""
