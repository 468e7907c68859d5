"""Train the autoencoder: reconstruction, a light KL, and scale equivariance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn.functional import avg_pool2d, mse_loss

from imax_dist.errors import BadManifest
from imax_dist.study.train.autoencoder import build_autoencoder, described, round_trip_psnr, scale_error
from imax_dist.study.train.budget import Budget, set_rate, warm_then_cosine
from imax_dist.study.train.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    prefixed,
    restore_optimizer,
    save_checkpoint,
    under,
)
from imax_dist.study.train.crops import CropBank, held_out, to_unit
from imax_dist.study.train.journal import Journal
from imax_dist.study.train.optimizer import Muon, split_parameters
from imax_dist.study.train.precision import mixed_precision
from imax_dist.study.train.same_run import Origin, origin_of_crops, require_same_run, require_unused


@dataclass(frozen=True)
class VaeSettings:
    """Settings of a run. Small crops first, whole 128 px pictures in the last ``whole`` of it."""

    widths: tuple[int, ...] = (32, 64, 96, 96)
    rate: float = 3e-3
    decay: float = 0.01
    crop: int = 64
    batch: int = 16
    whole: float = 0.25
    kl: float = 1e-4
    every_scale: int = 4  # each so many steps is a scale-equivariance step
    seed: int = 0
    save_every: float = 240.0  # seconds
    log_every: float = 30.0


def train_vae(
    folder: Path, bank: CropBank, settings: VaeSettings, *, budget: Budget, device: str = "cpu"
) -> AutoencoderKL:
    """Train in ``folder`` (vae.safetensors, vae.jsonl), going on from a checkpoint that is there.

    Raises BadManifest if that, or a loss curve without it, is of another run.
    """
    torch.manual_seed(settings.seed)
    model = build_autoencoder(settings.widths).to(device)
    network = described(model)
    halves = network.placed("encoder"), network.placed("decoder")
    edges = tuple(half[end].conv.name for half in halves for end in (0, -1))
    groups = split_parameters(model.named_parameters(), rate=settings.rate, decay=settings.decay, skip=edges)
    optimizer = Muon(groups)
    path, origin = folder / "vae.safetensors", origin_of_crops(bank)
    step = begun = _resume(path, model, optimizer, (budget, settings, origin))
    held = to_unit(held_out(16, 128)).to(device)
    journal = Journal(folder / "vae.jsonl", every=settings.log_every, step=step)
    saved = budget.elapsed()
    while (progress := budget.progress(step)) < 1:
        set_rate(optimizer, warm_then_cosine(step, progress))
        losses = _step(model, optimizer, _batch(bank, settings, step, progress).to(device), (step, settings))
        step += 1
        journal.note(**losses)
        if journal.due(budget.elapsed()):
            facts = {"psnr": round(float(round_trip_psnr(model, held).mean()), 2)}
            journal.write(step=step, seconds=round(budget.elapsed(), 1), **facts)
        if budget.elapsed() - saved > settings.save_every:
            saved = budget.elapsed()
            _save(path, model, optimizer, (step, budget, settings, origin))
    _save(path, model, optimizer, (step, budget, settings, origin))
    finish(model, held)
    if step > begun or not begun:
        journal.write(
            step=step, seconds=round(budget.elapsed(), 1), scale_error=round(scale_error(model, held), 4),
            psnr=round(float(round_trip_psnr(model, held).mean()), 2),
        )  # fmt: skip
    return model


def _batch(bank: CropBank, settings: VaeSettings, step: int, progress: float) -> torch.Tensor:
    rng = np.random.default_rng([settings.seed, 3, step])
    if progress < 1 - settings.whole or step % 2:
        return bank.draw(settings.batch, settings.crop, rng)
    return bank.draw(max(1, settings.batch // 4), 2 * settings.crop, rng)


def _step(
    model: AutoencoderKL, optimizer: Muon, images: torch.Tensor, at: tuple[int, VaeSettings]
) -> dict[str, float]:
    """One update; every so often the decoder must draw the half-size picture from pooled latents."""
    step, settings = at
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    images = images.to(memory_format=torch.channels_last)
    with mixed_precision(images.device):
        posterior = model.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(images.device)
        latents, target = posterior.mean + posterior.std * noise, images
        if step % settings.every_scale == settings.every_scale - 1:
            latents, target = avg_pool2d(latents, 2), avg_pool2d(images, 2)
        drawn = model.decode(latents).sample.float()
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    rebuilt = reconstruction_loss(drawn, target)
    optimizer.zero_grad(set_to_none=True)
    (rebuilt + settings.kl * kl).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return {"loss": float(rebuilt.detach()), "kl": float(kl.detach())}


def reconstruction_loss(drawn: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1, squared error and the L1 of the pixel differences, which keeps edges crisp."""
    error = drawn - target
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + 4 * mse_loss(drawn, target) + 0.25 * (across + down)


@torch.no_grad()
def finish(model: AutoencoderKL, images: torch.Tensor) -> None:
    """Store in the config the shift and scale that bring latents to mean 0 and variance 1."""
    latents = model.encode(images).latent_dist.mode()
    model.register_to_config(scaling_factor=float(1 / latents.std()), shift_factor=float(latents.mean()))


def _save(
    path: Path, model: AutoencoderKL, optimizer: Muon, at: tuple[int, Budget, VaeSettings, Origin]
) -> None:
    step, budget, settings, origin = at
    tensors = prefixed("model", model.state_dict()) | prefixed("optimizer", optimizer_tensors(optimizer))
    facts = {"step": step, "seconds": budget.elapsed(), "settings": asdict(settings), "origin": origin}
    save_checkpoint(path, tensors, facts)


def _resume(
    path: Path, model: AutoencoderKL, optimizer: Muon, run: tuple[Budget, VaeSettings, Origin]
) -> int:
    budget, settings, origin = run
    if not path.exists():
        require_unused(path, path.with_suffix(".jsonl"))
        _save(path, model, optimizer, (0, *run))
        return 0
    tensors, facts = load_checkpoint(path)
    require_same_run(path, facts, asdict(settings), origin)
    model.load_state_dict(under("model", tensors))
    restore_optimizer(optimizer, under("optimizer", tensors))
    budget.spent += float(facts["seconds"])
    return int(facts["step"])


def load_vae(path: Path, images: torch.Tensor) -> AutoencoderKL:
    """The model of a checkpoint of ``train_vae``, its scale set from ``images``. Raises BadManifest if it is
    of something else."""
    tensors, facts = load_checkpoint(path)
    if "widths" not in facts["settings"]:
        raise BadManifest(f"{path} is not a checkpoint of train-vae; name one")
    model = build_autoencoder(tuple(facts["settings"]["widths"]))
    model.load_state_dict(under("model", tensors))
    model = model.eval().requires_grad_(False)
    finish(model, images)
    return model
