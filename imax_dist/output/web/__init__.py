"""A batch as pages: the viewer and the report."""
