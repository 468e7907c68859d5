from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import save_file

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.study.scenes import sample_scene, varied_caption
from imax_dist.study.train.autoencoder import build_autoencoder
from imax_dist.study.train.budget import Budget, warm_then_cosine
from imax_dist.study.train.checkpoint import load_checkpoint, prefixed, save_checkpoint, under
from imax_dist.study.train.crops import HELD_OUT, fill_bank, to_bytes, to_unit
from imax_dist.study.train.held_out_loss import held_out_loss, held_out_scenes
from imax_dist.study.train.journal import Journal
from imax_dist.study.train.latents import load_buckets
from imax_dist.study.train.network import FlowNetwork, FlowShape, grid_ids
from imax_dist.study.train.optimizer import Muon, orthogonal, split_parameters
from imax_dist.study.train.sample import load_pipeline
from imax_dist.study.train.text import TEXT_TOKENS, build_tokenizers


def test_ids_are_those_of_flux_pipeline() -> None:
    ids = FluxPipeline._prepare_latent_image_ids(1, 6, 10, torch.device("cpu"), torch.float32)
    assert torch.equal(grid_ids((6, 10)), ids)


def test_orthogonal_keeps_the_directions_and_levels_the_singular_values() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(24, 60) @ torch.diag(torch.logspace(0, -2, 60))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    singular = torch.diag(u.T @ orthogonal(matrix) @ vh.T)
    assert singular.min() > 0.5
    assert singular.max() < 1.35


def test_the_optimizer_fits_a_small_regression() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 2))
    x = torch.randn(64, 8)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], 1)
    optimizer = Muon(split_parameters(model.named_parameters(), rate=0.02, decay=0.0))
    for _ in range(120):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05 * y.square().mean()


def test_only_hidden_matrices_are_orthogonalised() -> None:
    model = torch.nn.ModuleDict({"embed": torch.nn.Linear(3, 3), "inner": torch.nn.Linear(3, 3)})
    matrices, others = split_parameters(model.named_parameters(), rate=1.0, decay=0.0, skip=("embed",))
    assert [p.shape for p in matrices["params"]] == [(3, 3)]
    assert len(others["params"]) == 3


def test_a_checkpoint_gives_back_tensors_and_facts(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", prefixed("model", {"w": torch.ones(3)}), {"step": 7})
    tensors, facts = load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(under("model", tensors)["w"], torch.ones(3))
    assert facts == {"step": 7}


def test_a_safetensors_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.ones(3)}, str(tmp_path / "b.safetensors"))
    with pytest.raises(BadManifest, match="is not a training checkpoint"):
        load_checkpoint(tmp_path / "b.safetensors")


def test_the_rate_warms_up_holds_and_falls() -> None:
    factors = [warm_then_cosine(step, step / 1000) for step in range(1001)]
    assert factors[0] == 0.01
    assert factors[299] == 1
    assert 0.45 < factors[650] < 0.55
    assert factors[1000] == 0.01


def test_progress_goes_by_steps_unless_seconds_are_given() -> None:
    assert Budget(steps=10).progress(5) == 0.5
    assert Budget().progress(0) == 1
    assert 0.5 <= Budget(steps=10, seconds=100, spent=50).progress(0) < 0.51


def test_the_journal_averages_between_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", every=10)
    journal.note(loss=1.0)
    journal.note(loss=3.0)
    journal.write(seconds=12.0, step=2)
    assert json.loads((tmp_path / "j.jsonl").read_text()) == {"step": 2, "seconds": 12.0, "loss": 2.0}
    assert not journal.due(21.9)
    assert journal.due(22.0)


def test_crops_depend_on_the_seed_alone_and_bytes_survive() -> None:
    import numpy as np

    bank = fill_bank(0, scale=0.001)
    first, again = (bank.draw(4, 32, np.random.default_rng(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (4, 3, 32, 32)
    assert torch.equal(to_unit(to_bytes(first)), first)


def test_both_tokenizers_keep_words_whole_and_fit_every_caption() -> None:
    tokenizers = build_tokenizers()
    said = [varied_caption(sample_scene(k), k) for k in range(300)]
    for tokenizer, marks in ((tokenizers.clip, 2), (tokenizers.t5, 1)):
        for text in said:
            assert len(tokenizer(text).input_ids) == len(text.split()) + marks
    clip, t5 = tokenizers.ids(said)
    assert clip.shape == t5.shape == (300, TEXT_TOKENS)


def test_an_empty_data_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="holds no encoded scenes"):
        load_buckets(tmp_path, build_tokenizers())


def test_a_folder_that_is_no_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="is not a saved pipeline"):
        load_pipeline(tmp_path)


def test_the_held_out_loss_of_a_network_that_says_nothing_is_the_velocity_itself() -> None:
    torch.manual_seed(0)
    tokenizers = build_tokenizers()
    vae = build_autoencoder((8, 8, 8, 8))
    vae.register_to_config(scaling_factor=0.5, shift_factor=0.1)
    scenes = held_out_scenes(vae, tokenizers, 3, size=(64, 96))
    assert scenes.tokens.shape == (3, 4 * 6, 64)
    assert scenes.grid == (4, 6)
    silent = FlowNetwork(FlowShape(heads=1, double=1, single=1, guidance=True), tokenizers)
    noise = [torch.randn(24, 64, generator=torch.Generator().manual_seed(HELD_OUT + k)) for k in range(3)]
    expected = torch.stack([(noise[k] - scenes.tokens[k]).square().mean() for k in range(3)])
    found = held_out_loss(silent, scenes)
    assert found.n == 3
    assert abs(found.mean - float(expected.mean())) < 1e-6
    assert found.low < found.mean < found.high
