"""Train the rectified flow: velocity = noise - image at logit-normal noise levels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import mse_loss

from imax_dist.errors import BadManifest
from imax_dist.study.train.budget import Budget, set_rate, warm_then_cosine
from imax_dist.study.train.checkpoint import (
    load_checkpoint,
    load_facts,
    optimizer_tensors,
    prefixed,
    restore_optimizer,
    save_checkpoint,
    under,
)
from imax_dist.study.train.journal import Journal
from imax_dist.study.train.latents import Buckets, require_sizes
from imax_dist.study.train.network import FlowNetwork, FlowShape, Text
from imax_dist.study.train.optimizer import Muon, split_parameters
from imax_dist.study.train.precision import mixed_precision
from imax_dist.study.train.same_run import Origin, origin_of, require_same_run, require_unused
from imax_dist.study.train.text import Tokenizers

_PLAIN = ("embed", "shared", "proj_out.", "norm_out", "token", "position", "relative")


@dataclass(frozen=True)
class FlowSettings:
    """Settings of a run.

    ``batch`` samples of the ``native`` size (height, width) an update; other sizes get as many tokens. They
    join from ``mixed_from`` on and take ``mixed`` of the updates, each in proportion to its weight in
    ``shares`` (1 where it has none). Sigma is logit-normal with ``centre`` and ``spread``, then shifted by
    (side / native side) ** ``level_shift`` for larger pictures, as FLUX shifts by resolution
    (Esser et al., arXiv 2403.03206, Sec. 5.3.2).
    """

    shape: FlowShape = field(default_factory=FlowShape)
    rate: float = 2e-3
    decay: float = 0.01
    batch: int = 32
    hold: float = 0.5
    drop_caption: float = 0.1
    native: tuple[int, int] = (128, 128)
    shares: tuple[tuple[tuple[int, int], float], ...] = ()
    level_shift: float = 0.0
    spread: float = 1.0
    centre: float = 0.1
    ema: float = 0.998
    mixed_from: float = 0.55
    mixed: float = 0.4
    seed: int = 0
    save_every: float = 240.0
    log_every: float = 30.0


@dataclass
class FlowRun:
    """A training run in flight: the network, its running average, the optimiser, what it learns from, updates
    and samples."""

    network: FlowNetwork
    average: FlowNetwork
    optimizer: Muon
    origin: Origin
    step: int = 0
    samples: int = 0


def start(
    settings: FlowSettings, tokenizers: Tokenizers, buckets: Buckets, *, teacher: FlowNetwork | None = None,
    teaching: object = None, device: str = "cpu",
) -> FlowRun:  # fmt: skip
    """A fresh run that learns from ``buckets`` and, by the settings ``teaching``, from ``teacher``.

    Raises MissingInput if the settings want sizes that the buckets lack.
    """
    require_sizes(buckets, settings.native, [size for size, _ in settings.shares])
    torch.manual_seed(settings.seed)
    network = FlowNetwork(settings.shape, tokenizers).to(device)
    groups = split_parameters(
        network.named_parameters(), rate=settings.rate, decay=settings.decay, skip=_PLAIN
    )
    average = copy.deepcopy(network).eval().requires_grad_(False)
    origin = origin_of(buckets, tokenizers, teacher, teaching=teaching)
    return FlowRun(network, average, Muon(groups), origin)


def train_flow(
    folder: Path, buckets: Buckets, tokenizers: Tokenizers, *, settings: FlowSettings, budget: Budget,
    device: str = "cpu", teacher: FlowNetwork | None = None,
) -> FlowNetwork:  # fmt: skip
    """Train in ``folder`` (flow.safetensors, flow.jsonl), resuming from a checkpoint that is there.

    A fresh run starts from the weights of ``teacher`` where one is given. Keeps flow-native.safetensors, the
    weights before other sizes joined. Returns the running average. Raises BadManifest for files of another
    run.
    """
    run = start(settings, tokenizers, buckets, teacher=teacher, device=device)
    if teacher is not None:
        for network in (run.network, run.average):
            network.load_state_dict(teacher.state_dict())
    empty = Text(*tokenizers.ids([""])).to(device)

    def step(batch: Batch) -> dict[str, float]:
        loss = _step(run, batch, empty, settings)
        return {"loss": loss, f"loss_{16 * batch.grid[1]}x{16 * batch.grid[0]}": loss}

    native = folder / "flow-native.safetensors"
    return train(
        folder / "flow.safetensors", run, buckets, step=step, settings=settings, budget=budget, native=native
    )


def train(
    path: Path, run: FlowRun, buckets: Buckets, *, step: Callable[[Batch], Mapping[str, float]],
    settings: FlowSettings, budget: Budget, native: Path | None = None,
) -> FlowNetwork:  # fmt: skip
    """Update ``run`` by ``step`` until the budget is spent, resuming from ``path``; returns the average.

    ``step`` returns losses for the journal, which lies beside. With ``native``, a file for the weights before
    that, other sizes join as the settings say, else from the beginning.
    """
    kept = resume(path, run, budget, settings, native=native)
    journal = Journal(path.with_suffix(".jsonl"), every=settings.log_every, step=run.step)
    saved = budget.elapsed()
    while (progress := budget.progress(run.step)) < 1:
        set_rate(run.optimizer, warm_then_cosine(run.step, progress, hold=settings.hold))
        if native is not None and progress >= settings.mixed_from and not kept:
            kept = True
            save(native, run, budget, settings)
        batch = draw_batch(buckets, settings, run.step, progress=1.0 if native is None else progress)
        journal.note(**step(batch))
        run.samples += len(batch.tokens)
        if journal.due(budget.elapsed()):
            journal.write(step=run.step, samples=run.samples, seconds=round(budget.elapsed(), 1))
        if budget.elapsed() - saved > settings.save_every:
            saved = budget.elapsed()
            save(path, run, budget, settings)
    save(path, run, budget, settings)
    return run.average


@dataclass(frozen=True)
class Batch:
    """Clean tokens, captions, and the grid they sit on."""

    tokens: torch.Tensor
    text: Text
    grid: tuple[int, int]
    generator: torch.Generator


def draw_batch(buckets: Buckets, settings: FlowSettings, step: int, *, progress: float) -> Batch:
    """The step's data: a function of seed and step alone, so that a resumed run goes on the same."""
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    others = [size for size in buckets if size != settings.native]
    mixed = bool(others) and progress >= settings.mixed_from
    mixed = mixed and float(torch.rand((), generator=generator)) < settings.mixed
    size = _draw_size(others, settings, generator) if mixed else settings.native
    bucket, native = buckets[size], buckets[settings.native].grid
    tokens_an_update = settings.batch * native[0] * native[1]
    count = max(1, min(settings.batch, tokens_an_update // (bucket.grid[0] * bucket.grid[1])))
    tokens, text = bucket.draw(count, generator)
    return Batch(tokens, text, bucket.grid, generator)


def _draw_size(
    sizes: list[tuple[int, int]], settings: FlowSettings, generator: torch.Generator
) -> tuple[int, int]:
    """One of ``sizes``, by the weights of the settings."""
    shares = dict(settings.shares)
    weights = torch.tensor([shares.get(size, 1.0) for size in sizes])
    return sizes[int(torch.multinomial(weights, 1, generator=generator))]


def shift_levels(sigma: torch.Tensor, grid: tuple[int, int], settings: FlowSettings) -> torch.Tensor:
    """Noise levels moved up for pictures above the native area: s sigma / (1 + (s - 1) sigma)."""
    native = settings.native[0] * settings.native[1] / 256  # 16 pixels a token
    scale: float = max(1.0, (grid[0] * grid[1] / native) ** (settings.level_shift / 2))
    return scale * sigma / (1 + (scale - 1) * sigma)


def noise_levels(count: int, settings: FlowSettings, generator: torch.Generator) -> torch.Tensor:
    """Logit-normal sigma in 0..1, (count,). Esser et al., arXiv 2403.03206, Sec. 3.1."""
    normal = torch.randn(count, generator=generator)
    return torch.sigmoid(settings.spread * normal + settings.centre)


def drop_captions(text: Text, empty: Text, dropped: torch.Tensor) -> Text:
    """The text with the captions of the rows where ``dropped`` (B,) holds made empty."""
    where = dropped[:, None]
    return Text(torch.where(where, empty.clip, text.clip), torch.where(where, empty.t5, text.t5))


def _step(run: FlowRun, batch: Batch, empty: Text, settings: FlowSettings) -> float:
    """One update of network and average; returns the loss."""
    device = empty.clip.device
    generator, count = batch.generator, len(batch.tokens)
    noise = torch.randn(batch.tokens.shape, generator=generator).to(device)
    sigma = shift_levels(noise_levels(count, settings, generator), batch.grid, settings).to(device)
    dropped = torch.rand(count, generator=generator) < settings.drop_caption
    text = drop_captions(batch.text.to(device), empty, dropped.to(device))
    clean = batch.tokens.to(device)
    noisy = torch.lerp(clean, noise, sigma[:, None, None])
    with mixed_precision(device), attention_for(device, batch.tokens.shape[1]):
        velocity = run.network(noisy, sigma, text, grid=batch.grid).float()
    loss = mse_loss(velocity, noise - clean)
    update(run, loss, settings.ema)
    return float(loss.detach())


def attention_for(device: torch.device, tokens: int) -> AbstractContextManager[None]:
    """On a CPU plain products beat the fused kernel by a quarter at 88 tokens, and take 1.1 times as long at
    280 and 2.1 times at 1048 (measured)."""
    if device.type == "cpu" and tokens < 128:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def update(run: FlowRun, loss: torch.Tensor, ema: float) -> None:
    """Backward, clip, step, average."""
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
    run.optimizer.step()
    run.step += 1
    keep = min(ema, (run.step + 1) / (run.step + 30))
    with torch.no_grad():
        for mean, now in zip(run.average.parameters(), run.network.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)


def save(path: Path, run: FlowRun, budget: Budget, settings: FlowSettings) -> None:
    """Write network, average, optimiser and step."""
    tensors = prefixed("network", run.network.state_dict())
    tensors |= prefixed("average", run.average.state_dict())
    tensors |= prefixed("optimizer", optimizer_tensors(run.optimizer))
    facts = {
        "step": run.step,
        "samples": run.samples,
        "seconds": budget.elapsed(),
        "settings": asdict(settings),
        "origin": run.origin,
    }
    save_checkpoint(path, tensors, facts)


def resume(path: Path, run: FlowRun, budget: Budget, settings: FlowSettings, *, native: Path | None) -> bool:
    """Resume from ``path``, or write the beginning there; whether ``native`` is there from before this step.

    Raises BadManifest if a file is of another run.
    """
    files = [native] if native is not None else []
    if not path.exists():
        require_unused(path, path.with_suffix(".jsonl"), *files)
        save(path, run, budget, settings)
        return False
    tensors, facts = load_checkpoint(path)
    require_same_run(path, facts, asdict(settings), run.origin)
    run.network.load_state_dict(under("network", tensors))
    run.average.load_state_dict(under("average", tensors))
    restore_optimizer(run.optimizer, under("optimizer", tensors))
    run.step, run.samples = int(facts["step"]), int(facts.get("samples", 0))
    budget.spent += float(facts["seconds"])
    held = {file: load_facts(file) for file in files if file.exists()}
    for file, of in held.items():
        require_same_run(file, of, asdict(settings), run.origin)
    return any(int(of["step"]) <= run.step for of in held.values())


def load_flow(path: Path, tokenizers: Tokenizers) -> FlowNetwork:
    """The running average of a checkpoint, for inference. Raises BadManifest if it is not of a flow."""
    tensors, facts = load_checkpoint(path)
    if "shape" not in facts["settings"]:
        raise BadManifest(f"{path} is not a checkpoint of train-flow, distil or distil-steps; name one")
    network = FlowNetwork(FlowShape(**facts["settings"]["shape"]), tokenizers)
    network.load_state_dict(under("average", tensors))
    return network.eval().requires_grad_(False)
