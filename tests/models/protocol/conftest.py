"""The tiny pipelines, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from imax_dist.models.tiny import TINY, make_tiny


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> folder of its tiny pipeline."""
    root = tmp_path_factory.mktemp("tiny")
    return {name: make_tiny(name, root / name) for name in TINY}
