"""Tensors over process groups; knows no model. Every function equals its serial form (tests/parallel)."""
