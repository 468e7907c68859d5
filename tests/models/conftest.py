"""What tests of models share."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantised_files import matrices
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("lora-file") / "style.safetensors"
    save_file(matrices(), file)
    return file
