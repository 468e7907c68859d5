"""Reading a model's weights."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imax_dist.models import weights


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Where and how much was asked of the kernel, in order."""
    found: list[tuple[int, int]] = []

    def note(descriptor: int, at: int, length: int, advice: int) -> None:
        assert (os.fstat(descriptor).st_size, advice) == (2 * weights.PIECE + 5, os.POSIX_FADV_WILLNEED)
        found.append((at, length))

    monkeypatch.setattr(os, "posix_fadvise", note)
    return found


def sparse(folder: Path) -> Path:
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(2 * weights.PIECE + 5)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_file_is_asked_for_in_order_before_it_is_mapped(asked: Any, tmp_path: Path) -> None:
    weights.read_ahead(sparse(tmp_path))
    assert asked == [(number * weights.PIECE, weights.PIECE) for number in range(3)]


def test_what_free_memory_would_not_hold_is_not_asked_for(
    asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "virtual_memory", lambda: SimpleNamespace(available=weights.PIECE))
    weights.read_ahead(sparse(tmp_path))
    assert asked == []
