"""What a poster or a batch costs on a cluster, said before any GPU is touched. Pure functions; no weights."""
