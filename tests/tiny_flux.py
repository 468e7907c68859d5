"""A FLUX pipeline folder with a tiny random transformer and VAE, real text encoders and tokenizers.

The transformer's weights are large, so that attention is peaked: nearly uniform attention would hide a wrong
log-sum-exp or a token counted twice. The VAE is the embedded model's with a quarter of its channels, whose
convolutions would be three quarters of a small poster's time.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from imax_dist.models.find import EMBEDDED

TRAINED_FLUX = Path(__file__).parent / "golden" / "trained"
"""The first embedded model, native 128 px, whose weights stay: for tests of what a model has learnt."""
SETTINGS = """
native_side: 64
steps: {native: 3, extrapolated: 4}
guidance_scale: {native: 2.0, extrapolated: 1.5}
text_tokens: 7
native_shift: 1.6
shift_factor: 1.5
"""


def make_tiny_flux(
    folder: Path,
    *,
    guidance_embeds: bool = False,
    heads: int = 4,
    settings: str | None = SETTINGS,
    **config: Any,
) -> Path:
    """Write the folder: native 64 px, 4 x 4 tokens, 7 text tokens, 1 double and 2 single blocks."""
    from diffusers import FluxTransformer2DModel

    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"):
        shutil.copytree(EMBEDDED / part, folder / part)
    shutil.copy(EMBEDDED / "model_index.json", folder)
    values = dict(
        in_channels=64, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=heads,
        joint_attention_dim=128, pooled_projection_dim=128, axes_dims_rope=(4, 6, 6),
        guidance_embeds=guidance_embeds,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)  # the biases keep diffusers' own start values: the same ones every time
        transformer = FluxTransformer2DModel(**{**values, **config})
        vae = _narrow_vae()
    for part, network in (("transformer", transformer), ("vae", vae)):
        generator = torch.Generator().manual_seed(11)
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                gain = 0.5 if name == "decoder.conv_out.weight" else 1.5  # few pixels leave -1 to 1
                deviation = gain / parameter[0].numel() ** 0.5
                parameter.data.normal_(0.0, deviation, generator=generator)
        network.save_pretrained(folder / part)
    if settings is not None:
        (folder / "imax.yaml").write_text(settings)
    return folder


def _narrow_vae() -> Any:
    """Of the embedded model's form: 16 latent channels, 8 px a side."""
    from diffusers import AutoencoderKL

    config = AutoencoderKL.load_config(EMBEDDED / "vae")
    return AutoencoderKL.from_config({**config, "block_out_channels": (8, 16, 24, 24)})


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a config file in place."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
