"""What one poster computes, in tokens, steps and latent pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from imax_dist.config import choice
from imax_dist.geometry import LatentGrid
from imax_dist.method.patch_shift import shifted_grid
from imax_dist.models.blueprint import Blueprint, find_blueprint
from imax_dist.parallel.engines.window import attended
from imax_dist.pipeline.guide import size_if_here
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.upsample import uses_network
from imax_dist.planner.encoders import encoder_parameters
from imax_dist.planner.transformer import Transformer, transformer_of
from imax_dist.planner.unknown import UnknownCost
from imax_dist.super_resolution.network import shape_for_plan
from imax_dist.vae.autoencoder import Autoencoder
from imax_dist.vae.networks import NETWORKS, describe

ELEMENT = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes a number."""


@dataclass(frozen=True)
class Network:
    """All parts of a model."""

    name: str
    transformer: Transformer
    autoencoder: Autoencoder
    encoder_parameters: int
    """Of all text encoders together."""


@dataclass(frozen=True)
class Pass:
    """Equal steps of one pass: how many, over how many tokens, how often the network runs in each."""

    steps: int
    image: int
    text: int
    runs: int
    """2 with classifier-free guidance, else 1."""
    context: int = 0
    """Tokens of the picture that an editor is shown."""
    number: int = 0
    """Of the pass: 0 is the native one."""

    @property
    def seen(self) -> int:
        """Tokens of pictures."""
        return self.image + self.context

    @property
    def tokens(self) -> int:
        return self.seen + self.text


class Enlarged(NamedTuple):
    """A picture on its way from one pass to the next."""

    before: LatentGrid | None
    """Of what is decoded; None: the picture was given."""
    after: LatentGrid
    number: int
    """Of the pass it is for. All ranks decode it if the pass before it was theirs: the native picture is
    rank 0's."""


class ByNetwork(NamedTuple):
    """A picture that a super-resolution network enlarges; its rows are shared, and ``reach`` more read."""

    height: int
    width: int
    flops: float
    """Of a pixel."""
    held: int
    """Numbers of a pixel."""
    reach: int
    number: int
    """Of the pass."""

    def rows(self, ranks: int) -> float:
        """That one rank computes."""
        return min(self.height, self.height / ranks + 2 * self.reach)


@dataclass(frozen=True)
class Workload:
    """One poster."""

    size: str
    network: Network
    dtype: str
    native: tuple[Pass, ...]
    """By rank 0 alone or by all ranks, as ``native_by`` says."""
    extrapolated: tuple[Pass, ...]
    """On all ranks: the steps on the plain grid and those on the shifted one."""
    grid: LatentGrid
    """Of the poster."""
    native_grid: LatentGrid
    latent_channels: int
    prompt_tokens: int
    enlarged: tuple[Enlarged, ...]
    """Pictures that are decoded, enlarged and encoded again as a pass's reference, or shown to an editor."""
    by_network: tuple[ByNetwork, ...] = ()
    """Those of them that a super-resolution network enlarges."""
    vae_gib: float | None = None
    """As ``vae_memory_gib`` of the parallel settings: a rank's memory for the VAE's maps."""
    encoders_away: bool = False
    """Text encoders in the host's memory, as ``text_encoders: cpu`` of the parallel settings asks."""
    native_by: Literal["rank0", "shared", "auto"] = "rank0"
    """As ``native`` of the parallel settings; auto is the faster of both. Where a gang makes several posters,
    rank 0's part may be made ahead, for as many posters at once as there are ranks (``proofs_first``), and
    the first of the larger passes after it (``passes_ahead``)."""
    compiled: bool | None = False
    """Blocks compiled on a GPU, as ``compile`` of the parallel settings asks; None is left to the planner."""
    windowed: bool = False
    """Sparse attention in large passes, as ``engine: window`` asks."""

    @property
    def element(self) -> int:
        return ELEMENT[self.dtype]

    @property
    def latents(self) -> int:
        """Latent pixels of the poster."""
        return self.grid.height * self.grid.width

    @property
    def passes(self) -> tuple[Pass, ...]:
        return self.native + self.extrapolated

    def keys(self, each: Pass) -> int:
        """Keys that a query meets in a step of this pass."""
        sparse = self.windowed and not each.context
        return each.text + attended(each.image) if sparse else each.tokens

    @property
    def flops(self) -> float:
        """The transformer's, all steps together."""
        net = self.network.transformer
        return sum(
            each.steps
            * each.runs
            * (net.linear_flops(each.seen, each.text) + net.attention_flops(each.tokens, self.keys(each)))
            for each in self.passes
        )


def workload_of(request: Request, blueprint: Blueprint, *, device: Literal["gpu", "cpu"]) -> Workload:
    """The workload of ``request`` in the dtype the model takes on this kind of device."""
    plan = make_plan(request, blueprint.spec, size_if_here(request))
    types = blueprint.spec.settings.dtype
    dtype = request.dtype or (types.cuda if device == "gpu" else types.cpu)
    choice("dtype", dtype, ELEMENT)
    guided = plan.extrapolates and plan.uses_native
    needed = guided and not request.starts_from_guide
    native = _native(plan.native) if needed or not plan.extrapolates else ()
    by_pixels = plan.method.reference.upsample != "latents"
    return Workload(
        size=str(plan.size),
        network=network_of(blueprint),
        dtype=dtype,
        native=native,
        extrapolated=tuple(part for one in plan.passes for part in _extrapolated(one)),
        grid=plan.last.grid,
        native_grid=plan.native.grid,
        latent_channels=plan.spec.latent_channels,
        prompt_tokens=plan.spec.settings.text_tokens,
        enlarged=(*(_enlarged(plan) if guided and by_pixels else ()), *_shown(plan)),
        by_network=_by_network(plan) if uses_network(plan) else (),
    )


def workloads(requests: Sequence[Request], *, device: Literal["gpu", "cpu"]) -> list[Workload]:
    """One a request, in order; requests that differ in prompt and seed alone share one. Raises BadValue."""
    blueprints = {name: find_blueprint(name) for name in dict.fromkeys(each.model for each in requests)}
    made: dict[str, Workload] = {}
    for request in requests:
        key = replace(request, prompt="-", seed=0).fingerprint
        if key not in made:
            made[key] = workload_of(request, blueprints[request.model], device=device)
    return [made[replace(request, prompt="-", seed=0).fingerprint] for request in requests]


def with_settings(work: Workload, parallel: ParallelSettings, *, device: Literal["gpu", "cpu"]) -> Workload:
    """The same poster as these parallel settings render it: memory of VAE and text encoders, compilation."""
    away = device == "gpu" and parallel.text_encoders == "cpu"
    compiled = None if device == "gpu" and parallel.compile == "auto" else False
    if device == "gpu" and parallel.compiles:
        compiled = True
    made = replace(work, vae_gib=parallel.vae_memory_gib, encoders_away=away, compiled=compiled)
    return replace(made, native_by=parallel.native, windowed=parallel.engine == "window")


def network_of(blueprint: Blueprint) -> Network:
    """The cost of each part; parameters as stored where the weights are on this disk."""
    spec, stored = blueprint.spec, blueprint.stored
    encoders = [part for part in blueprint.configs if part.startswith("text_encoder")]
    return Network(
        name=spec.name,
        transformer=transformer_of(
            blueprint.configs["transformer"],
            stored=stored.get("transformer"),
            heads=spec.heads,
            kv_heads=spec.kv_heads or spec.heads,
            head_dim=spec.head_dim,
        ),
        autoencoder=_autoencoder_of(blueprint.configs["vae"]),
        encoder_parameters=sum(
            stored.get(part) or encoder_parameters(blueprint.configs[part]) for part in encoders
        ),
    )


def _autoencoder_of(config: dict[str, Any]) -> Autoencoder:
    network = describe(config)
    if network is None:
        known = ", ".join(NETWORKS)
        raise UnknownCost(f"the cost of this {config.get('_class_name')} is not known, only of plain {known}")
    return network


def _shown(plan: PosterPlan) -> tuple[Enlarged, ...]:
    """The picture that an editor is shown, at every pass's size."""
    return tuple(Enlarged(None, one.grid, one.number) for one in plan.passes if one.context != "none")


def _enlarged(plan: PosterPlan) -> tuple[Enlarged, ...]:
    given = plan.request.starts_from_guide
    grids = [None if given else plan.native.grid, *(one.grid for one in plan.passes)]
    return tuple(
        Enlarged(before, one.grid, one.number)
        for before, one in zip(grids, plan.passes, strict=False)
        for _ in one.reference_sigmas
    )


def _by_network(plan: PosterPlan) -> tuple[ByNetwork, ...]:
    """Of every pass's references; ``auto`` is taken to be installed."""
    network = shape_for_plan(plan.method.reference.network)
    sizes = [
        (one.reference_size or plan.native_size, one.number)
        for one in plan.passes
        for _ in one.reference_sigmas
    ]
    cost = (network.flops, network.held, network.trunk_reach)
    return tuple(ByNetwork(size.height, size.width, *cost, number) for size, number in sizes)


def _native(plan: PassPlan) -> tuple[Pass, ...]:
    image = plan.grid.tokens(plan.spec.patch).count
    text = plan.spec.settings.text_tokens
    shown = image if plan.context == "tokens" else 0
    return (Pass(plan.steps, image, text, _runs(plan, plan.guidance_scale), shown),)


def _extrapolated(plan: PassPlan) -> tuple[Pass, ...]:
    """The steps at which the network is asked."""
    computed = [index for index in range(plan.steps) if index not in plan.skipped]
    shifted = sum(plan.shift_at(index) != "none" for index in computed)
    text = plan.spec.settings.text_tokens * plan.copies.literal
    runs = _runs(plan, plan.guidance_scale)
    counts: list[tuple[int, LatentGrid]] = [
        (shifted, shifted_grid(plan.grid)),
        (len(computed) - shifted, plan.grid),
    ]
    images = [(count, grid.tokens(plan.spec.patch).count) for count, grid in counts if count]
    shown = plan.context == "tokens"
    return tuple(Pass(count, image, text, runs, image * shown, plan.number) for count, image in images)


def _runs(plan: PassPlan, scale: float) -> int:
    return 2 if plan.spec.guidance == "classifier_free" and scale != 1.0 else 1
