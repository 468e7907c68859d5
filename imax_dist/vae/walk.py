"""AutoencoderKL's encoder and decoder in the order of their own ``forward``, on maps of rows."""

from __future__ import annotations

from typing import Any

from imax_dist.vae.layers import (
    attention,
    convolution,
    downsampled,
    normalised,
    resnet,
    upsampled,
)
from imax_dist.vae.rows import LazyRows, Rows, keep
from imax_dist.vae.store import Scratch


def decoded(vae: Any, latents: Rows, scratch: Scratch) -> Rows:
    """The picture of ``latents`` (height, width, C), as a map to be read once: (8 height, 8 width, 3)."""
    decoder = vae.decoder
    rows: Rows = latents
    if vae.post_quant_conv is not None:
        rows = convolution(rows, vae.post_quant_conv, last=True)
    rows = _middle(keep(convolution(rows, decoder.conv_in, last=True), scratch), decoder.mid_block, scratch)
    for block in decoder.up_blocks:
        for part in block.resnets:
            rows = resnet(rows, part, scratch)
        for part in block.upsamplers or ():
            rows = upsampled(rows, part.conv, scratch)
    return _out(rows, decoder)


def encoded(vae: Any, picture: Rows, scratch: Scratch) -> Rows:
    """Mean and log variance of the latents of ``picture`` (H, W, 3): (H / 8, W / 8, 2 C), to be read once."""
    encoder = vae.encoder
    rows: Rows = keep(convolution(picture, encoder.conv_in, last=True), scratch)
    for block in encoder.down_blocks:
        for part in block.resnets:
            rows = resnet(rows, part, scratch)
        for part in block.downsamplers or ():
            rows = downsampled(rows, part.conv, scratch)
    out = _out(_middle(rows, encoder.mid_block, scratch), encoder)
    return out if vae.quant_conv is None else convolution(out, vae.quant_conv, last=True)


def is_known(vae: Any) -> bool:
    """Whether the walk gives what ``vae`` itself would: its class, its blocks, and none of their options."""
    from diffusers import AutoencoderKL
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D

    if type(vae) is not AutoencoderKL:
        return False
    kinds = {*vae.config.down_block_types, *vae.config.up_block_types}
    if kinds != {"DownEncoderBlock2D", "UpDecoderBlock2D"}:
        return False
    parts = list(vae.modules())
    return all(
        _plain_resnet(part) if isinstance(part, ResnetBlock2D) else _plain_attention(part)
        for part in parts
        if isinstance(part, ResnetBlock2D | Attention)
    ) and all(
        block.downsamplers is None or block.downsamplers[0].padding == 0 for block in vae.encoder.down_blocks
    )


def _plain_resnet(block: Any) -> bool:
    extras = (block.time_emb_proj, block.upsample, block.downsample)
    return all(extra is None for extra in extras) and block.time_embedding_norm in ("default", "group")


def _plain_attention(block: Any) -> bool:
    extras = (block.spatial_norm, block.norm_q, block.norm_k, block.norm_cross)
    plain = block.residual_connection and block.group_norm is not None
    return plain and all(not extra for extra in extras)


def _middle(rows: Rows, block: Any, scratch: Scratch) -> Rows:
    rows = resnet(rows, block.resnets[0], scratch)
    for attend, part in zip(block.attentions, block.resnets[1:], strict=True):
        if attend is not None:
            rows = attention(rows, attend, scratch)
        rows = resnet(rows, part, scratch)
    return rows


def _out(rows: Rows, coder: Any) -> LazyRows:
    before = normalised(rows, coder.conv_norm_out, coder.conv_act)
    return convolution(rows, coder.conv_out, before, last=True)
