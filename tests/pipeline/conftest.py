"""What tests of the pipeline share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_flux import make_tiny_flux

from imax_dist.models.load import load_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A loaded model of a few channels, with its text encoders."""
    folder = make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model")
    return load_model(str(folder), device=torch.device("cpu"), dtype="float32")
