"""The one interface of a model: a rectified-flow transformer with its VAE and text encoders.

What all networks share is here: prompts, classifier-free guidance, the VAE's scaling.

A new network implements four functions: ``prepare``, ``embed``, ``position_ids`` and ``predict``
(CONTRIBUTING.md, "A new model").
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from imax_dist.errors import BadConfig
from imax_dist.geometry import LatentGrid, TokenGrid
from imax_dist.method.rope import base_frequencies, rope_table
from imax_dist.method.text_duplication import ORIGIN, TextCopies
from imax_dist.models.conditioning import Conditioning, Prompt
from imax_dist.models.guidance import Combine, classifier_free
from imax_dist.models.joint_attention import AttentionCall
from imax_dist.models.momentum_guidance import MomentumGuidance, NetworkVelocity
from imax_dist.models.spec import ModelSpec
from imax_dist.models.token_shards import TokenSequence, TokenShards
from imax_dist.parallel.engines import AttentionEngine, marking
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.mesh import single_rank
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Latents, Pixels, PositionIds, RopeTable

TablesByText: TypeAlias = Callable[[int], RopeTable]
"""The joint sequence's rotary table for a prompt of so many tokens, attention factor folded in."""


class LatentScale(NamedTuple):
    """latents = (what the VAE makes - shift) x factor; numbers, or tensors broadcast over (B, C, H, W)."""

    shift: float | Tensor
    factor: float | Tensor


class PassInputs(NamedTuple):
    """What every call of the network in a pass is given besides image, time and prompt."""

    tables: TablesByText
    sequence: TokenSequence
    scale: float | None
    """The guidance that a distilled model takes as an input, else None."""
    context: Latents | None = None
    """What an editor is shown, on the grid of the image."""
    next_sigma: float = 0.0
    """Where the step ends; a flow map takes it."""


class JointPass(NamedTuple):
    """One pass of a network whose text is in the sequence."""

    grid: TokenGrid
    table: RopeTable
    """Of the whole sequence."""
    states: Tensor
    """This rank's share of all literal text copies, (B, tokens, D)."""
    shares: TokenShards


class FlowModel(ABC):
    """A rectified-flow transformer with its VAE and text encoders, loaded on one device."""

    spec: ModelSpec
    transformer: Any
    """diffusers' own module; only its attention processors and position inputs are exchanged."""
    vae: Any
    """diffusers' own module."""
    encoders: Any
    """What the network's ``embed`` reads prompts with; None on ranks that never encode one."""
    dtype: torch.dtype
    """Of the latents that the transformer takes."""
    device: torch.device
    notes: tuple[str, ...] = ()
    """What loading found that a person wants to know: how much of each LoRA was merged."""
    base_weights: Mapping[str, Tensor] = MappingProxyType({})
    """Weights that LoRA files have changed, as they were, where another set may follow (``lora_sets``)."""

    combine: Combine = staticmethod(classifier_free)
    """How predictions with and without the prompt are put together."""
    wrap_engine: Callable[[AttentionEngine], AttentionEngine] = staticmethod(lambda engine: engine)
    """Engines go through it before the network sees them; a compiled network hides them from the compiler."""

    def __init__(self, spec: ModelSpec, *, transformer: Any, vae: Any, encoders: Any) -> None:
        self.spec = spec
        self.transformer = transformer
        self.vae = vae
        self.encoders = encoders
        self.dtype = transformer.dtype
        self.device = transformer.device
        self.prepare(transformer)

    @abstractmethod
    def prepare(self, transformer: Any) -> None:
        """Exchange diffusers' attention processors and position inputs for ours."""

    @abstractmethod
    def embed(self, text: str) -> Prompt:
        """One prompt, padded, cut and encoded as the model's own pipeline does."""

    @abstractmethod
    def position_ids(self, grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
        """Ids of the whole joint sequence: every text copy, then the image row by row."""

    def embed_beside(self, text: str, picture: Pixels) -> Prompt:
        """One prompt as read beside a picture, (1, 3, h, w) in [-1, 1]; most encoders see no pictures."""
        del picture
        return self.embed(text)

    def context_ids(self, grid: TokenGrid) -> PositionIds:
        """Of the picture an editor is shown: those of the image, one further along the first axis."""
        ids = self.position_ids(grid, ORIGIN, text_tokens=0).clone()
        ids[:, 0] += 1.0
        return ids

    @abstractmethod
    def predict(self, x: Latents, sigma: float, prompt: Prompt, inputs: PassInputs) -> Latents:
        """One pass of the network: noise minus image for the whole ``x``, (B, C, H, W) as it is.

        The same bits on every rank. Overrides keep to this.
        """

    def batch(self, prompts: Sequence[Prompt]) -> Prompt:
        """Prompts as one batch. Raises BadConfig if their lengths differ and the network takes no mask."""
        lengths = [{name: x.shape[1:] for name, x in prompt.items()} for prompt in prompts]
        if any(other != lengths[0] for other in lengths):
            raise BadConfig(
                f"parallel: cfg batched needs prompts of one length, but {self.spec.name} does not pad them; "
                "use cfg two_passes or split"
            )
        return {name: torch.cat([prompt[name] for prompt in prompts]) for name in prompts[0]}

    def encode_prompt(self, prompt: str, *, negative: bool, picture: Pixels | None = None) -> Conditioning:
        """Embed the prompt, and the empty one too if ``negative``; an editor's beside the ``picture`` given.

        Raises BadConfig without encoders.
        """
        if self.encoders is None:
            raise BadConfig("this rank was started without text encoders; rank 0 encodes the prompt")
        empty = self._embedded("", picture) if negative else None
        return Conditioning(self._embedded(prompt, picture), empty)

    def _embedded(self, text: str, picture: Pixels | None) -> Prompt:
        made = self.embed(text) if picture is None else self.embed_beside(text, picture)
        return {name: tensor.to(self.device) for name, tensor in made.items()}

    @torch.no_grad()
    def velocity(
        self,
        x: Latents,
        sigma: float,
        conditioning: Conditioning,
        *,
        tables: TablesByText,
        sequence: TokenSequence,
        guidance_scale: float,
        context: Latents | None = None,
        next_sigma: float = 0.0,
        index: int = 0,
        momentum: Latents | None = None,
    ) -> NetworkVelocity:
        """Noise minus image at ``sigma`` for the whole latent ``x``, guided; the same bits on every rank.

        ``index`` of the step and the ``momentum`` after the one before it are for models that guide with one.
        Raises BadConfig if guidance lacks the empty prompt.
        """
        engine = self.wrap_engine(marking(sequence.engine, sequence.mesh.marks))
        sequence = dataclasses.replace(sequence, engine=engine)
        scale = guidance_scale if self.spec.guidance == "distilled" else None
        inputs = PassInputs(tables, sequence, scale, context, next_sigma)

        def predict(x: Latents, prompt: Prompt) -> Latents:
            return self.predict(x, sigma, prompt, inputs)

        if self.spec.guidance != "classifier_free" or guidance_scale == 1.0:
            return NetworkVelocity(predict(x, conditioning.positive), momentum)
        if conditioning.negative is None:
            raise BadConfig("classifier-free guidance needs the empty prompt, which was not encoded")
        prompts = conditioning.positive, conditioning.negative

        def batch(prompts: Sequence[Prompt]) -> Prompt:
            made_of = tuple(tensor for one in prompts for tensor in one.values())
            return sequence.cache(("batch",), made_of, lambda: self.batch(prompts))

        positive, negative = sequence.cfg_execution(predict, x, prompts, batch=batch)
        if self.spec.momentum:
            guider = self.momentum_of(conditioning.positive, x)
            return guider(positive, negative, guidance_scale, index=index, momentum=momentum)
        return NetworkVelocity(self.combine(positive, negative, guidance_scale), None)

    def momentum_of(self, prompt: Prompt, x: Latents) -> MomentumGuidance:
        """How this prompt is guided at the size of ``x``, where the model guides with a momentum."""
        del prompt, x
        return self.spec.momentum[0]

    def latent_scale(self) -> LatentScale:
        """The VAE's own numbers."""
        config = self.vae.config
        return LatentScale(config.shift_factor or 0.0, config.scaling_factor)

    def scaled(self, latents: Latents) -> Latents:
        """What the VAE makes, as the transformer takes it."""
        scale = self.latent_scale()
        return (latents - scale.shift) * scale.factor

    def unscaled(self, latents: Latents) -> Latents:
        """The inverse, in the VAE's dtype."""
        scale = self.latent_scale()
        return latents.to(self.vae.dtype) / scale.factor + scale.shift

    @torch.no_grad()
    def encode_image(self, pixels: Pixels, *, noise: Latents | None) -> Latents:
        """Pixels in [-1, 1] to latents: the posterior's mean, or mean + deviation x ``noise``."""
        return self.scaled(sample_posterior(self.vae.encode(pixels.to(self.vae.dtype)).latent_dist, noise))

    @torch.no_grad()
    def decode_image(self, latents: Latents) -> Pixels:
        """Latents to pixels, about [-1, 1], not clamped."""
        pixels: Tensor = self.vae.decode(self.unscaled(latents), return_dict=False)[0]
        return pixels

    def call_alone(self, table: RopeTable) -> AttentionCall:
        """For tokens that every rank computes by itself, as a refined caption's."""
        layout = JointLayout(text=(0,), image=(len(table.cos),))
        return AttentionCall(table, self.wrap_engine(TorchEngine(single_rank())), layout)

    def trained_table(self, ids: PositionIds) -> RopeTable:
        """Of positions that no image size changes, as a prompt's own."""
        spec = self.spec
        frequencies = [base_frequencies(dim, spec.rope_theta) for dim in spec.rope_axes]
        precision = torch.promote_types(self.dtype, torch.float32)
        return RopeTable(*(part.to(self.device, precision) for part in rope_table(ids, frequencies)))

    def token_grid(self, x: Latents) -> TokenGrid:
        """The tokens of ``x``."""
        return LatentGrid(height=x.shape[2], width=x.shape[3]).tokens(self.spec.patch)

    def joint_pass(self, x: Latents, states: Tensor, inputs: PassInputs) -> JointPass:
        """Positions and shares of ``x`` with a prompt's ``states``, (B, tokens, D), in front."""
        grid, table = self.token_grid(x), inputs.tables(states.shape[1])
        shown = inputs.context is not None and self.spec.context == "tokens"
        shares = TokenShards.joint(inputs.sequence, states, image_tokens=grid.count, pictures=1 + shown)
        return JointPass(grid, table, shares.copies(states), shares)

    def per_image(self, value: float, x: Latents) -> Tensor:
        """A number as the network takes it, (B,) in its dtype."""
        return torch.full((x.shape[0],), value, dtype=self.dtype, device=self.device)


def sample_posterior(posterior: Any, noise: Tensor | None) -> Tensor:
    """The mean of a VAE's posterior, or mean + deviation x ``noise``."""
    mean: Tensor = posterior.mean
    return mean if noise is None else mean + posterior.std * noise.to(mean)
