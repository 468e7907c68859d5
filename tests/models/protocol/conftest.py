"""The tiny pipelines, each made once a session, when a test first asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from imax_dist.models.tiny import make_tiny


class Folders(dict[str, Path]):
    """Name -> folder of its tiny pipeline."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def __missing__(self, name: str) -> Path:
        self[name] = make_tiny(name, self._root / name)
        return self[name]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return Folders(tmp_path_factory.mktemp("tiny"))
