"""Names for tensor shapes, checked on every call while the tests run (jaxtyping + beartype).

Latents are (batch, channel, height, width), tokens (batch, tokens, channel), attention heads
(batch, tokens, heads, head_dim); position ids are (tokens, axes).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from torch import Tensor

if TYPE_CHECKING or "jaxtyping" in sys.modules:  # brought by the import hook of the tests
    from jaxtyping import Float
else:

    class Float:
        """The tensor itself: importing jaxtyping would take 0.1 s of every start."""

        def __class_getitem__(cls, shaped: tuple[Any, str]) -> Any:
            return shaped[0]


Pixels: TypeAlias = Float[Tensor, "batch 3 height width"]
Picture: TypeAlias = Float[Tensor, "height width 3"]
Latents: TypeAlias = Float[Tensor, "batch channel height width"]
OtherLatents: TypeAlias = Float[Tensor, "batch channel other_height other_width"]
References: TypeAlias = Float[Tensor, "references channel height width"]
Reference: TypeAlias = Float[Tensor, "1 channel height width"]
Tokens: TypeAlias = Float[Tensor, "batch tokens channel"]
PositionIds: TypeAlias = Float[Tensor, "tokens axes"]
Heads: TypeAlias = Float[Tensor, "batch tokens heads head_dim"]
KeyHeads: TypeAlias = Float[Tensor, "batch tokens kv_heads head_dim"]
Queries: TypeAlias = Float[Tensor, "batch queries heads head_dim"]
Keys: TypeAlias = Float[Tensor, "batch keys kv_heads head_dim"]
LogSumExp: TypeAlias = Float[Tensor, "batch tokens heads"]


class RopeTable(NamedTuple):
    """Cosines and sines of every token, both (tokens, head_dim), pairs interleaved."""

    cos: Float[Tensor, "tokens head_dim"]
    sin: Float[Tensor, "tokens head_dim"]
