"""A training folder is one run's: its files are kept, cut where the run goes on, and no other run's taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from imax_dist.errors import BadManifest, CannotWrite, MissingInput
from imax_dist.study.train import flow, vae
from imax_dist.study.train.autoencoder import build_autoencoder
from imax_dist.study.train.budget import Budget
from imax_dist.study.train.checkpoint import load_checkpoint, load_facts
from imax_dist.study.train.crops import HELD_OUT, fill_bank
from imax_dist.study.train.flow import FlowSettings, load_flow, train_flow
from imax_dist.study.train.journal import Journal
from imax_dist.study.train.latents import Buckets, encode_scenes, load_buckets
from imax_dist.study.train.network import FlowShape
from imax_dist.study.train.text import Tokenizers, build_tokenizers
from imax_dist.study.train.vae import VaeSettings, load_vae, train_vae

SMALL = VaeSettings(widths=(8, 8, 16, 16), batch=2, crop=32, log_every=0.0)
TINY = FlowSettings(shape=FlowShape(heads=1, double=1, single=1), batch=2, native=(64, 64), log_every=0.0)


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    return build_tokenizers()


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory, tokenizers: Tokenizers) -> Buckets:
    folder = tmp_path_factory.mktemp("latents")
    network = build_autoencoder(SMALL.widths)
    network.register_to_config(scaling_factor=1.0, shift_factor=0.0)
    encode_scenes(folder, network, range(4), size=(64, 64))
    return load_buckets(folder, tokenizers)


@pytest.fixture
def train(buckets: Buckets, tokenizers: Tokenizers) -> Callable[..., Any]:
    def go_on(folder: Path, steps: int, settings: FlowSettings = TINY) -> Any:
        return train_flow(folder, buckets, tokenizers, settings=settings, budget=Budget(steps=steps))

    return go_on


def steps_of(journal: Path) -> list[int]:
    return [json.loads(line)["step"] for line in journal.read_text(encoding="utf-8").splitlines()]


class Killed(Exception):
    """What a power cut looks like from inside."""


def killed_at(step: int, draw: Callable[..., Any]) -> Callable[..., Any]:
    """``draw``, of a batch, up to ``step``."""

    def drawn(*given: Any, **named: Any) -> Any:
        if given[2] == step:
            raise Killed
        return draw(*given, **named)

    return drawn


def test_a_loss_curve_or_weights_without_their_checkpoint_are_another_runs(
    tmp_path: Path, train: Callable[..., Any]
) -> None:
    (tmp_path / "flow.jsonl").write_text('{"step": 7}\n', encoding="utf-8")
    with pytest.raises(BadManifest, match=r"holds flow.jsonl of another run, and no flow.safetensors to res"):
        train(tmp_path, 1)
    (tmp_path / "flow-native.safetensors").write_bytes(b"weights")
    with pytest.raises(BadManifest, match=r"flow.jsonl and flow-native.safetensors of .* or remove them"):
        train(tmp_path, 1)
    assert (tmp_path / "flow.jsonl").read_text() == '{"step": 7}\n'
    assert not (tmp_path / "flow.safetensors").exists()
    (tmp_path / "vae.jsonl").touch()
    with pytest.raises(BadManifest, match=r"holds vae.jsonl of another run, and no vae.safetensors"):
        train_vae(tmp_path, fill_bank(0, scale=0.001), SMALL, budget=Budget(steps=1))


def test_weights_before_other_sizes_are_this_runs_or_refused(
    tmp_path: Path, train: Callable[..., Any]
) -> None:
    at_once = replace(TINY, mixed_from=0.0)
    train(tmp_path / "a", 1, at_once)
    train(tmp_path / "b", 1, replace(at_once, seed=1))
    foreign, native = (tmp_path / name / "flow-native.safetensors" for name in ("b", "a"))
    native.write_bytes(foreign.read_bytes())
    with pytest.raises(BadManifest, match=r"flow-native.safetensors is of a run with other settings \(seed"):
        train(tmp_path / "a", 2, at_once)


def test_a_run_killed_before_its_first_checkpoint_starts_again_from_its_beginning(
    tmp_path: Path, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(TINY, mixed_from=0.5)
    whole = train(tmp_path / "a", 5, settings)
    with monkeypatch.context() as patch:
        patch.setattr(flow, "draw_batch", killed_at(4, flow.draw_batch))
        with pytest.raises(Killed):
            train(tmp_path / "b", 5, settings)
    held, native = tmp_path / "b" / "flow.jsonl", tmp_path / "b" / "flow-native.safetensors"
    assert steps_of(held) == [1, 2, 3, 4]
    assert load_facts(tmp_path / "b" / "flow.safetensors")["step"] == 0
    with held.open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "sam')  # cut short
    native.write_bytes(native.read_bytes())
    before = native.stat().st_mtime_ns
    resumed = train(tmp_path / "b", 5, settings)
    assert steps_of(held) == [1, 2, 3, 4, 5]
    assert native.stat().st_mtime_ns > before  # from after the checkpoint, so written again
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_journal_goes_on_from_the_checkpoints_step(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st', encoding="utf-8")
    Journal(path, every=1.0, step=2).write(seconds=1.0, step=3)
    assert steps_of(path) == [1, 2, 3]


def test_an_autoencoders_curve_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = fill_bank(0, scale=0.001)
    with monkeypatch.context() as patch:
        patch.setattr(vae, "_batch", killed_at(2, vae._batch))
        with pytest.raises(Killed):
            train_vae(tmp_path, bank, SMALL, budget=Budget(steps=3))
    assert steps_of(tmp_path / "vae.jsonl") == [1, 2]
    for _ in range(2):  # the second has nothing to do
        train_vae(tmp_path, bank, SMALL, budget=Budget(steps=3))
    assert steps_of(tmp_path / "vae.jsonl") == [1, 2, 3, 3]  # the last line has what was reached


def test_what_is_no_checkpoint_is_refused_in_a_sentence(
    tmp_path: Path, train: Callable[..., Any], tokenizers: Tokenizers
) -> None:
    (tmp_path / "flow.safetensors").write_bytes(b"junk" * 100)
    with pytest.raises(BadManifest, match=r"flow.safetensors is not a training checkpoint; name another fil"):
        train(tmp_path, 1)
    with pytest.raises(MissingInput, match=r"none.safetensors does not exist; name a training checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="cannot be written"):
        train(tmp_path / "file", 1)


def test_a_folder_with_other_files_than_scenes_to_train_on_is_refused(
    tmp_path: Path, tokenizers: Tokenizers
) -> None:
    path = tmp_path / "64x64-0000000.safetensors"
    held_out = {"latents": torch.zeros(1, 16, 8, 8), "seeds": torch.tensor([HELD_OUT])}
    save_file(held_out, str(path))
    with pytest.raises(BadManifest, match=r"holds scene 1000000, but scenes from 1000000 on are held out"):
        load_buckets(tmp_path, tokenizers)
    save_file({"weights": torch.zeros(1)}, str(path))
    with pytest.raises(BadManifest, match=r"0000000.safetensors holds no encoded scenes; remove it, or name"):
        load_buckets(tmp_path, tokenizers)
    path.write_bytes(b"junk" * 100)
    with pytest.raises(BadManifest, match=r"0000000.safetensors holds no encoded scenes"):
        load_buckets(tmp_path, tokenizers)


def test_a_checkpoint_of_another_kind_is_named(
    tmp_path: Path, train: Callable[..., Any], tokenizers: Tokenizers
) -> None:
    train(tmp_path, 1)
    train_vae(tmp_path, fill_bank(0, scale=0.001), SMALL, budget=Budget(steps=1))
    with pytest.raises(BadManifest, match=r"vae.safetensors is not a checkpoint of train-flow"):
        load_flow(tmp_path / "vae.safetensors", tokenizers)
    with pytest.raises(BadManifest, match=r"flow.safetensors is not a checkpoint of train-vae"):
        load_vae(tmp_path / "flow.safetensors", torch.zeros(1, 3, 64, 64))
