"""The whole path in seconds: autoencoder, latents, flow, distillation, pipeline folder, measurement."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.models.closed_vocabulary import t5_tokenizer
from imax_dist.models.load import describe_model
from imax_dist.study.scenes.caption import vocabulary
from imax_dist.study.train.autoencoder import build_autoencoder, scale_error
from imax_dist.study.train.budget import Budget
from imax_dist.study.train.checkpoint import load_checkpoint, save_checkpoint
from imax_dist.study.train.crops import CropBank, fill_bank, held_out, to_unit
from imax_dist.study.train.distil import distil_guidance, guided
from imax_dist.study.train.flow import FlowSettings, draw_batch, load_flow, shift_levels, train_flow
from imax_dist.study.train.latents import encode_scenes, load_buckets
from imax_dist.study.train.measure import measure_pipeline
from imax_dist.study.train.network import FlowNetwork, FlowShape, Text
from imax_dist.study.train.pipeline import assemble, save_pipeline
from imax_dist.study.train.sample import draw, load_pipeline
from imax_dist.study.train.text import TEXT_TOKENS, Tokenizers, build_tokenizers
from imax_dist.study.train.vae import VaeSettings, load_vae, train_vae

SMALL = VaeSettings(widths=(8, 8, 16, 16), batch=2, crop=32, log_every=1e9)
TINY = FlowSettings(shape=FlowShape(heads=1, double=1, single=1), batch=4, log_every=0.0)


@pytest.fixture(scope="module")
def bank() -> CropBank:
    return fill_bank(0, scale=0.001)


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    return build_tokenizers()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    torch.manual_seed(0)
    vae = build_autoencoder(SMALL.widths)
    vae.register_to_config(scaling_factor=1.0, shift_factor=0.0)
    for size in ((128, 128), (96, 160)):
        encode_scenes(folder, vae, range(6), size=size)
    return folder


def test_a_resumed_vae_run_is_the_uninterrupted_one(tmp_path: Path, bank: CropBank) -> None:
    whole = train_vae(tmp_path / "a", bank, SMALL, budget=Budget(steps=6))
    train_vae(tmp_path / "b", bank, SMALL, budget=HaltedAt(3, steps=6))
    resumed = train_vae(tmp_path / "b", bank, SMALL, budget=Budget(steps=6))
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    lines = (tmp_path / "a" / "vae.jsonl").read_text().splitlines()
    assert {"psnr", "scale_error", "loss", "kl"} <= set(json.loads(lines[-1]) | json.loads(lines[-2]))


class HaltedAt(Budget):
    """Stops early, with the schedule of the whole run: what a preempted run looks like."""

    def __init__(self, step: int, *, steps: int) -> None:
        super().__init__(steps=steps)
        self.halt = step

    def progress(self, step: int) -> float:
        return 1.0 if step >= self.halt else super().progress(step)


def test_a_resumed_flow_run_is_the_uninterrupted_one(
    tmp_path: Path, data: Path, tokenizers: Tokenizers
) -> None:
    buckets = load_buckets(data, tokenizers)
    settings = replace(TINY, mixed=1.0)

    def train(name: str, budget: Budget) -> FlowNetwork:
        return train_flow(tmp_path / name, buckets, tokenizers, settings=settings, budget=budget)

    whole = train("a", Budget(steps=5))
    train("b", HaltedAt(2, steps=5))
    resumed = train("b", Budget(steps=5))
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert (tmp_path / "a" / "flow-native.safetensors").exists()


def test_a_folder_of_another_run_is_refused_not_mixed(
    tmp_path: Path, data: Path, tokenizers: Tokenizers, bank: CropBank
) -> None:
    buckets = load_buckets(data, tokenizers)

    def go_on(**changed: Any) -> FlowNetwork:
        how: dict[str, Any] = {"buckets": buckets, "tokenizers": tokenizers, "settings": TINY, **changed}
        return train_flow(tmp_path, budget=Budget(steps=1), **how)

    first = go_on()
    with pytest.raises(BadManifest, match=r"other settings \(rate 0.002 there, 0.0001 here\)"):
        go_on(settings=replace(TINY, rate=1e-4))
    with pytest.raises(
        BadManifest, match=r"flow.safetensors is of a run with other inputs \(teacher\); use another"
    ):
        go_on(teacher=first)
    fewer = {(128, 128): buckets[128, 128]}
    words = t5_tokenizer(vocabulary()[::-1], string.ascii_lowercase + string.digits, tokens=TEXT_TOKENS)
    reordered = replace(tokenizers, t5=words)
    with pytest.raises(BadManifest, match=r"is of a run with other inputs \(data, tokenizers\)"):
        go_on(buckets=fewer, tokenizers=reordered)
    path = tmp_path / "flow.safetensors"
    tensors, facts = load_checkpoint(path)
    save_checkpoint(path, tensors, {name: fact for name, fact in facts.items() if name != "origin"})
    go_on(buckets=fewer)  # a checkpoint of an earlier version does not say
    train_vae(tmp_path, bank, SMALL, budget=Budget(steps=1))
    with pytest.raises(
        BadManifest, match=r"vae.safetensors is of a run with other settings \(kl 0.0001 there"
    ):
        train_vae(tmp_path, bank, replace(SMALL, kl=1.0), budget=Budget(steps=1))
    with pytest.raises(BadManifest, match=r"vae.safetensors is of a run with other inputs \(pictures\)"):
        train_vae(tmp_path, CropBank(bank.pictures[:2]), SMALL, budget=Budget(steps=1))


def test_scenes_of_two_autoencoders_do_not_share_a_folder(data: Path, tokenizers: Tokenizers) -> None:
    torch.manual_seed(1)
    other = build_autoencoder(SMALL.widths)
    other.register_to_config(scaling_factor=1.0, shift_factor=0.0)
    with pytest.raises(BadManifest, match=r"128x128-0000000.safetensors was encoded by another autoencoder"):
        encode_scenes(data, other, range(1), size=(32, 32))
    assert set(load_buckets(data, tokenizers)) == {(128, 128), (96, 160)}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"native": (256, 256)}, "are 160x96, 128x128, but the native size is 256x256; .* --size 256x256"),
        (
            {"shares": (((512, 256), 1.0),)},
            "are 160x96, 128x128, but a --share is 256x512; .* --size 256x512",
        ),
    ],
)
def test_sizes_that_the_data_lack_are_refused(
    tmp_path: Path, data: Path, tokenizers: Tokenizers, wanted: dict[str, Any], message: str
) -> None:
    settings, buckets = replace(TINY, **wanted), load_buckets(data, tokenizers)
    with pytest.raises(MissingInput, match=message):
        train_flow(tmp_path, buckets, tokenizers, settings=settings, budget=Budget(steps=1))


def test_a_run_starts_from_the_weights_of_another(tmp_path: Path, data: Path, tokenizers: Tokenizers) -> None:
    buckets = load_buckets(data, tokenizers)
    first = train_flow(tmp_path / "a", buckets, tokenizers, settings=TINY, budget=Budget(steps=3))
    second = train_flow(
        tmp_path / "b", buckets, tokenizers, settings=TINY, budget=Budget(steps=0), teacher=first
    )
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_other_sizes_are_drawn_by_their_weights_with_as_many_tokens(
    data: Path, tokenizers: Tokenizers
) -> None:
    buckets = load_buckets(data, tokenizers)
    buckets[(256, 256)] = replace(buckets[(128, 128)], grid=(16, 16))
    settings = replace(TINY, batch=8, mixed=0.5, shares=(((256, 256), 3.0),))
    drawn = [draw_batch(buckets, settings, step, progress=1.0) for step in range(400)]
    share = {grid: sum(batch.grid == grid for batch in drawn) / 400 for grid in ((8, 8), (6, 10), (16, 16))}
    assert share == pytest.approx({(8, 8): 0.5, (6, 10): 0.125, (16, 16): 0.375}, abs=0.07)
    assert {len(batch.tokens) for batch in drawn if batch.grid == (16, 16)} == {2}
    early = [draw_batch(buckets, settings, step, progress=0.5).grid for step in range(50)]
    assert set(early) == {(8, 8)}


def test_larger_pictures_are_trained_at_noisier_levels() -> None:
    settings = replace(TINY, level_shift=0.5)
    sigma = torch.tensor([0.0, 0.2, 0.5, 1.0])
    assert torch.equal(shift_levels(sigma, (4, 8), settings), sigma)
    shift = 16 ** (0.5 / 2)  # 4 times the side
    want = shift * sigma / (1 + (shift - 1) * sigma)
    assert torch.allclose(shift_levels(sigma, (32, 32), settings), want)


def test_the_flow_learns_a_few_scenes(tmp_path: Path, data: Path, tokenizers: Tokenizers) -> None:
    settings = replace(TINY, rate=5e-3, batch=8)
    train_flow(
        tmp_path, load_buckets(data, tokenizers), tokenizers, settings=settings, budget=Budget(steps=40)
    )
    losses = [json.loads(line)["loss"] for line in (tmp_path / "flow.jsonl").read_text().splitlines()]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


def test_a_distilled_student_starts_as_the_teacher_and_is_saved_with_its_embedder(
    tmp_path: Path, data: Path, tokenizers: Tokenizers
) -> None:
    buckets = load_buckets(data, tokenizers)
    teacher = train_flow(tmp_path, buckets, tokenizers, settings=TINY, budget=Budget(steps=3))
    student = distil_guidance(
        tmp_path, buckets, tokenizers, teacher=teacher, settings=TINY, budget=Budget(steps=0)
    )
    x, sigma, text = torch.randn(2, 64, 64), torch.tensor([0.3, 0.8]), Text(*tokenizers.ids(["a", "sun"]))
    scale = torch.tensor([1.0, 4.0])
    told = student(x, sigma, text, grid=(8, 8), guidance=scale)
    assert torch.allclose(told, teacher(x, sigma, text, grid=(8, 8)), atol=1e-6)
    distil_guidance(tmp_path, buckets, tokenizers, teacher=teacher, settings=TINY, budget=Budget(steps=2))
    assert load_flow(tmp_path / "distil.safetensors", tokenizers).shape.guidance


def test_guidance_one_is_the_captioned_velocity_and_zero_the_empty_one(tokenizers: Tokenizers) -> None:
    torch.manual_seed(0)
    network = FlowNetwork(FlowShape(heads=1, double=1, single=1), tokenizers).eval()
    torch.nn.init.normal_(network.transformer.proj_out.weight)
    torch.nn.init.normal_(network.transformer.norm_out.linear.weight)
    x, sigma = torch.randn(2, 64, 64), torch.tensor([0.3, 0.8])
    text, empty = Text(*tokenizers.ids(["red sun", "blue sky"])), Text(*tokenizers.ids([""]))
    both = guided(network, x, sigma, text=text, empty=empty, grid=(8, 8), scale=torch.tensor([1.0, 0.0]))
    nothing = Text(*tokenizers.ids(["", ""]))
    assert torch.allclose(both[0], network(x, sigma, text, grid=(8, 8))[0], atol=1e-5)
    assert torch.allclose(both[1], network(x, sigma, nothing, grid=(8, 8))[1], atol=1e-5)


def test_a_saved_pipeline_loads_draws_and_is_measured(tmp_path: Path, tokenizers: Tokenizers) -> None:
    torch.manual_seed(0)
    vae = build_autoencoder(SMALL.widths)
    vae.register_to_config(scaling_factor=0.5, shift_factor=0.1)
    network = FlowNetwork(FlowShape(heads=1, double=1, single=1, guidance=True), tokenizers)
    vae.register_to_config(_name_or_path=str(tmp_path))
    size = save_pipeline(assemble(network, vae, tokenizers), tmp_path / "model", native_side=96)
    assert 0 < size < 4_000_000
    assert not [path for path in (tmp_path / "model").rglob("*.json") if str(tmp_path) in path.read_text()]
    assert describe_model(str(tmp_path / "model")).settings.native_side == 96
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "model").rglob("*.safetensors")} == {0o644}
    pipeline = load_pipeline(tmp_path / "model")
    said = ["a red sun over the sea"] * 3
    alone = draw(pipeline, said[:1], steps=2, seed=2)
    among = draw(pipeline, said, steps=2, batch=2)
    assert abs(alone[0].astype(int) - among[2]).max() <= 1
    results, pictures = measure_pipeline(pipeline, 2, size=(128, 128), steps=1, guidance=2.0)
    assert pictures[0].shape == (128, 128, 3)
    assert results["facts"]["truth"]["mean"]["mean"] > 0.9
    assert results["vae"]["psnr"]["n"] == 2


def test_the_scale_error_of_an_averaging_encoder_is_zero(tmp_path: Path, bank: CropBank) -> None:
    train_vae(tmp_path, bank, SMALL, budget=Budget(steps=1))
    images = to_unit(held_out(2, 64))
    vae = load_vae(tmp_path / "vae.safetensors", images)
    assert scale_error(vae, images) > 0
    assert abs(float(vae.encode(images).latent_dist.mode().std()) * vae.config.scaling_factor - 1) < 1e-3
