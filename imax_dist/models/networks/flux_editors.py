"""FLUX.1 as an editor: Kontext is shown a picture as tokens beside the image's, Fill as more channels.

Both are FLUX.1's network. Kontext's picture stands where its image does, one further along the first position
axis (arXiv 2506.15742); a prompt alone makes a picture too. Fill sees the picture with the region grey.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from imax_dist.errors import BadConfig
from imax_dist.models.architecture import always
from imax_dist.models.components import Configs
from imax_dist.models.networks import flux
from imax_dist.models.patches import pack
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.token_shards import TokenShards
from imax_dist.shapes import Latents


class FluxFillModel(flux.FluxModel):
    """Each token holds its noise, its place in the picture and its part of the mask."""

    def image_states(self, x: Latents, context: Latents | None, shares: TokenShards) -> Tensor:
        """This rank's image tokens, each with its context behind: (B, tokens, channels of both)."""
        assert context is not None, "plans without a region are refused"
        own = shares.image(pack(x), dim=1)
        place = "context", *context.shape
        shown = shares.sequence.cache(place, (context,), lambda: shares.image(pack(context), dim=1))
        return torch.cat([own, shown.expand(own.shape[0], -1, -1)], dim=2)


def kontext_facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig if they do not fit."""
    return dataclasses.replace(flux.facts(name, settings, configs, weights), context="tokens")


def fill_facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """The same; Fill takes the picture and its mask besides the latents.

    Raises BadConfig if its channels are not those of the three.
    """
    found = int(configs.transformer["in_channels"])
    made = {**configs.transformer, "in_channels": configs.transformer["out_channels"]}
    spec = flux.facts(name, settings, configs._replace(transformer=made), weights)
    wanted = spec.patch**2 * (2 * spec.latent_channels + spec.vae_factor**2)
    if found != wanted:
        raise BadConfig(
            f"model {name}: the transformer takes {found} channels, but latents, picture and mask "
            f"make {wanted}"
        )
    return dataclasses.replace(spec, context="channels", needs_picture=True)


KONTEXT = flux.ARCHITECTURE._replace(facts=kontext_facts, settings=always("flux-kontext"))
FILL = flux.ARCHITECTURE._replace(facts=fill_facts, settings=always("flux-fill"), model=FluxFillModel)
