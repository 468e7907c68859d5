"""A student of few steps starts as its teacher, and learns straight lines through its windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from imax_dist.study.train.autoencoder import build_autoencoder
from imax_dist.study.train.budget import Budget
from imax_dist.study.train.few_steps import Windows, distil_steps, follow, without_guidance
from imax_dist.study.train.flow import FlowSettings, load_flow
from imax_dist.study.train.latents import encode_scenes, load_buckets
from imax_dist.study.train.network import FlowNetwork, FlowShape, Text
from imax_dist.study.train.parts import flow_of, tokenizers_of, vae_of
from imax_dist.study.train.text import Tokenizers, build_tokenizers

SHAPE = FlowShape(heads=1, double=1, single=1, guidance=True)
TINY = FlowSettings(shape=SHAPE, batch=4, log_every=0.0)


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    return build_tokenizers()


def teacher(tokenizers: Tokenizers) -> FlowNetwork:
    """Random, but with every path open: a fresh network starts as zero."""
    torch.manual_seed(0)
    network = FlowNetwork(SHAPE, tokenizers)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def test_tokenizer_ids_are_the_same_every_time(tokenizers: Tokenizers) -> None:
    again = build_tokenizers()
    assert again.clip.get_vocab() == tokenizers.clip.get_vocab()
    said = ["a red sun over the sea", "a, b, c: words it does not know"]
    assert torch.equal(again.ids(said)[0], tokenizers.ids(said)[0])


@torch.no_grad()
def test_without_guidance_is_the_teacher_at_one_scale(tokenizers: Tokenizers) -> None:
    guided = teacher(tokenizers)
    plain = FlowNetwork(replace(SHAPE, guidance=False), tokenizers).eval()
    plain.load_state_dict(without_guidance(guided, 2.5))
    x, sigma, text = torch.randn(2, 64, 64), torch.tensor([0.3, 0.8]), Text(*tokenizers.ids(["a", "sun"]))
    told = plain(x, sigma, text, grid=(8, 8))
    at = {
        scale: guided(x, sigma, text, grid=(8, 8), guidance=torch.full((2,), scale)) for scale in (2.5, 4.0)
    }
    assert torch.allclose(told, at[2.5], atol=1e-5)
    assert not torch.allclose(told, at[4.0], atol=1e-3)


def test_windows_cover_all_noise_levels_and_half_the_samples_stand_at_their_start() -> None:
    first, last, sigma = Windows(steps=4, shift=1.6).draw(4000, torch.Generator().manual_seed(0))
    assert first.max() == 1
    assert last.min() == 0
    assert len(first.unique()) == 4
    assert ((last <= sigma) & (sigma <= first)).all()
    assert 0.45 < float((sigma == first).float().mean()) < 0.55


@torch.no_grad()
def test_following_a_network_is_its_euler_path(tokenizers: Tokenizers) -> None:
    network, text = teacher(tokenizers), Text(*tokenizers.ids(["a sun"]))
    x, windows = torch.randn(1, 64, 64), Windows(inner=2, scale=2.0)
    levels = torch.tensor([0.8]), torch.tensor([0.4])
    scale = torch.tensor([2.0])
    middle = x - 0.2 * network(x, torch.tensor([0.8]), text, grid=(8, 8), guidance=scale)
    end = middle - 0.2 * network(middle, torch.tensor([0.6]), text, grid=(8, 8), guidance=scale)
    assert torch.allclose(follow(network, x, levels, text=text, grid=(8, 8), windows=windows), end, atol=1e-5)


def test_a_student_is_trained_resumed_and_loaded(tmp_path: Path, tokenizers: Tokenizers) -> None:
    vae = build_autoencoder((8, 8, 16, 16))
    vae.register_to_config(scaling_factor=1.0, shift_factor=0.0)
    encode_scenes(tmp_path, vae, range(4), size=(128, 128))
    buckets = load_buckets(tmp_path, tokenizers)

    def train(steps: int) -> FlowNetwork:
        return distil_steps(
            tmp_path, buckets, tokenizers, teacher=teacher(tokenizers), settings=TINY,
            budget=Budget(steps=steps), windows=Windows(inner=1),
        )  # fmt: skip

    train(1)
    student = train(2)
    loaded = load_flow(tmp_path / "few-steps.safetensors", tokenizers)
    assert not loaded.shape.guidance
    for one, other in zip(student.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other)


def test_training_can_go_on_from_a_model_that_ships() -> None:
    tokenizers = tokenizers_of("embedded")
    network = flow_of("embedded", tokenizers)
    assert network.shape == FlowShape(guidance=True)
    assert tokenizers.clip("a sun").input_ids[:2] == tokenizers.clip("a").input_ids[:2]
    assert vae_of("embedded").config.latent_channels == 16
