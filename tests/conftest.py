"""What every test shares: one torch thread and a seeded generator; nothing is seeded globally."""

from __future__ import annotations

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """One thread: the same rounding on every machine, and no fight over cores."""
    torch.set_num_threads(1)


@pytest.fixture
def rng() -> torch.Generator:
    """A CPU generator with a fixed seed, new for each test."""
    return torch.Generator().manual_seed(20241010)
