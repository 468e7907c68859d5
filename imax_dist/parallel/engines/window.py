"""Sparse attention for drafts of very large posters: what is near exactly, what is far by samples.

At 8192 px nine tenths of a step of FLUX.1 are attention. Each chunk of image tokens attends to the text and
to the rows around it, key by key, and to every seventeenth of all other image tokens, each counted as often
as the keys it stands for: its log-sum-exp grows by log(far keys / samples), and the parts are merged exactly.
Text attends to everything. HRDiT's windows (diffusers pull request 14480) save as much; they differ by head
after a calibration that only a model's own weights can give. Not exact: DECISIONS 101.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from imax_dist.errors import BadConfig
from imax_dist.parallel.attention import attend_partially, merge, weighted
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.kernels import Kernel
from imax_dist.parallel.key_parts import KeyPart, key_parts
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.parallel.sequence import JointLayout
from imax_dist.parallel.ulysses import divisible_heads, gather_heads, send_qkv
from imax_dist.shapes import Heads, KeyHeads

Counted = tuple[Tensor, Tensor, float]
"""Keys, values (B, tokens, H, D) and how often each key counts."""
LEAST = 16384
"""Image tokens from which attention is sparse; an editor's two pictures are always attended exactly."""
CHUNKS = 16
"""Pieces of the image that share a window."""
STRIDE = 17
"""Of the samples, in tokens of the raster: odd, so that they fall into other columns in every row."""


def attended(image: int) -> int:
    """Image keys that an image query meets, of ``image``: near ones and samples of the far ones."""
    if image < LEAST:
        return image
    near = 2 * image // CHUNKS
    return near + (image - near) // STRIDE


class WindowEngine:
    """See AttentionEngine, but not exact. Raises BadConfig for a ring: a window needs the whole sequence."""

    def __init__(self, mesh: SequenceMesh, *, kernel: Kernel | None = None, least: int = LEAST) -> None:
        if mesh.ring > 1:
            raise BadConfig(
                f"parallel: engine window splits attention by heads alone, not over a ring of {mesh.ring}; "
                "use as many ranks as divide the model's heads, with ring: 1"
            )
        self.mesh = mesh
        self.kernel = kernel
        self.least = least
        self._exact = TorchEngine(mesh, kernel=kernel)

    def __call__(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int = 1
    ) -> Heads:
        if sum(layout.image) < self.least or layout.pictures > 1:
            return self._exact(query, key, value, layout=layout, text_weight=text_weight)
        mesh = self.mesh
        lengths = [layout.joint[rank] for rank in mesh.ulysses_ranks(0)]
        key, value = divisible_heads(key, mesh), divisible_heads(value, mesh)
        q, k, v = send_qkv((query, key, value), lengths, mesh).wait()
        text, image = _text_and_image(layout, mesh)
        output = torch.empty_like(q)
        words = None if text is None else (text.of(k), text.of(v), float(text_weight))
        pixels = (image.of(k), image.of(v), 1.0)
        if text is not None and words is not None:
            _put(output, text, self._attend(text.of(q), [words, pixels]))
        keys = _Keys(*pixels[:2], words)
        _put(output, image, self._image(image.of(q), keys))
        return gather_heads(output, lengths, mesh)

    def _image(self, query: Tensor, keys: _Keys) -> Tensor:
        """(B, image tokens, H, D): each chunk's attention to its window, the samples and the text."""
        total = query.shape[1]
        bounds = [total * chunk // CHUNKS for chunk in range(CHUNKS + 1)]
        pieces = []
        for start, stop in pairwise(bounds):
            margin = (stop - start) // 2
            window = max(0, start - margin), min(total, stop + margin)
            pieces.append(self._attend(query[:, start:stop], keys.parts(window)))
        return torch.cat(pieces, dim=1)

    def _attend(self, query: Tensor, parts: list[Counted]) -> Tensor:
        """Attention over all ``parts``, in the dtype of ``query``."""
        merged = None
        for key, value, weight in parts:
            part = attend_partially(query, key, value, kernel=self.kernel)
            merged = merge(merged, weighted(part, weight))
        assert merged is not None
        return merged.output.to(query.dtype)


class _Keys(NamedTuple):
    """Image keys and values in raster order, (B, tokens, H, D), and the text's with its weight."""

    key: Tensor
    value: Tensor
    words: Counted | None

    def parts(self, window: tuple[int, int]) -> list[Counted]:
        """Keys, values and how often each counts: text, the window's, samples of the rest."""
        start, stop = window
        total = self.key.shape[1]
        found: list[Counted] = [] if self.words is None else [self.words]
        found.append((self.key[:, start:stop], self.value[:, start:stop], 1.0))
        places = torch.arange(STRIDE // 2, total, STRIDE, device=self.key.device)
        before, after = -(-max(0, start - STRIDE // 2) // STRIDE), -(-max(0, stop - STRIDE // 2) // STRIDE)
        places = torch.cat([places[:before], places[after:]])
        far = total - (stop - start)
        if len(places):
            k, v = (x.index_select(1, places) for x in (self.key, self.value))
            found.append((k, v, far / len(places)))
        return found


def _text_and_image(layout: JointLayout, mesh: SequenceMesh) -> tuple[KeyPart | None, KeyPart]:
    """Where text and image are among the tokens of all ranks, one rank after the other."""
    *text, image = key_parts(layout, mesh.ulysses_ranks(0), text_weight=2)
    return (text[0] if text else None), KeyPart(image.spans)


def _put(output: Tensor, part: KeyPart, rows: Tensor) -> None:
    """Write ``rows`` where ``part`` lies in ``output``."""
    done = 0
    for start, stop in part.spans:
        output[:, start:stop] = rows[:, done : done + stop - start]
        done += stop - start
