"""Studies: variants of the method drawn on the same scenes from the same noise, measured and compared."""
