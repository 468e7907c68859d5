"""``imax doctor``: what is there, what is missing, and whether a render works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from imax_dist.cli import doctor
from imax_dist.models.find import SHIPPED

Imax = Callable[..., Any]


def test_a_whole_installation_is_all_right(imax: Imax) -> None:
    outcome = imax("doctor")
    assert outcome.code == 0
    assert "MISSING" not in outcome.out
    assert "ok  test render      embedded model, 128x128, " in outcome.out
    for name in (
        "python",
        "torch",
        "diffusers",
        "transformers",
        "ray",
        "cores",
        "memory",
        "disk here",
        "GPUs",
    ):
        assert f"  {name} " in outcome.out


def test_json_is_a_list_of_findings_and_nothing_else(imax: Imax) -> None:
    outcome = imax("doctor", "--json", "--no-render")
    findings = {each["name"]: each for each in json.loads(outcome.out)}
    value = findings["torch"].pop("value")
    assert findings["torch"] == {"name": "torch", "ok": True}
    assert torch.__version__.startswith(value)  # a build of one version may add +cu130
    assert findings["torch threads"]["value"] == str(torch.get_num_threads())
    assert "test render" not in findings
    assert outcome.err == ""


def test_a_missing_package_is_named_and_the_exit_code_says_so(
    imax: Imax, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", ("torch", "no-such-package"))
    outcome = imax("doctor", "--no-render")
    assert outcome.code == 78
    assert "MISSING  no-such-package  not installed" in outcome.out


def test_a_missing_extra_is_only_a_remark(imax: Imax, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OPTIONAL", {"no-such-package": "faster"})
    outcome = imax("doctor", "--no-render")
    assert outcome.code == 0
    assert "--  no-such-package  not installed: faster" in outcome.out


def test_a_render_that_fails_is_reported_not_raised(imax: Imax, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHIPPED, "embedded", Path("/no/such/model"))
    outcome = imax("doctor")
    assert outcome.code == 78
    assert "MISSING  test render      failed: model folder " in outcome.out


def test_the_queue_of_this_folder_is_tried_out_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.queue_here().startswith("SQLite with a ")
    assert list(tmp_path.iterdir()) == []
