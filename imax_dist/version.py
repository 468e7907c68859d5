"""The version, where every part may read it: the package itself imports the pipeline."""

from __future__ import annotations

__version__ = "0.1.0"
