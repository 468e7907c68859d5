"""How many elements of maps the walk computes on one rank, known before it starts."""

from __future__ import annotations

from typing import Any

from imax_dist.vae.share import RowShare


def decoded_elements(vae: Any, share: RowShare, width: int) -> int:
    """Of ``walk.decoded`` on this rank, without the picture itself; ``share``, ``width``: the latents'."""
    decoder = vae.decoder
    own = _own(share) * width
    total = own * (decoder.conv_in.out_channels + _middle(decoder.mid_block))
    for block in decoder.up_blocks:
        total += own * sum(map(_resnet, block.resnets))
        for part in block.upsamplers or ():
            share, width = share.doubled(), 2 * width
            own = _own(share) * width
            total += own * part.conv.out_channels
    return int(total)


def encoded_elements(vae: Any, share: RowShare, width: int) -> int:
    """Of ``walk.encoded`` on this rank, without the latents; ``share``, ``width``: the picture's."""
    encoder = vae.encoder
    own = _own(share) * width
    total = own * encoder.conv_in.out_channels
    for block in encoder.down_blocks:
        total += own * sum(map(_resnet, block.resnets))
        for part in block.downsamplers or ():
            share, width = share.halved(), width // 2
            own = _own(share) * width
            total += own * part.conv.out_channels
    return int(total + own * _middle(encoder.mid_block))


def _own(share: RowShare) -> int:
    return share.bottom - share.top


def _resnet(block: Any) -> int:
    return int(block.conv1.out_channels + block.conv2.out_channels)


def _middle(block: Any) -> int:
    attentions = sum(part.to_q.in_features for part in block.attentions if part is not None)
    return int(sum(map(_resnet, block.resnets)) + attentions)
