"""Models that are files and no folder: read by their tensors, converted, assembled to a folder of links."""
