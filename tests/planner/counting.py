"""Count what torch really does: bytes of element-wise kernels, and the most bytes alive at once."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MATRICES = ("aten::mm", "aten::addmm", "aten::bmm", "aten::convolution")
ATTENTION = "flash_attention"


class Counter(TorchDispatchMode):
    """``moved``: bytes read and written by all but matrix products; ``peak``: bytes of new tensors alive."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = self.alive = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function._schema.name
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        shared = {leaf.untyped_storage()._cdata for leaf in inputs}
        fresh = [leaf for leaf in outputs if leaf.untyped_storage()._cdata not in shared]
        if (fresh or name.endswith("_")) and name not in MATRICES and ATTENTION not in name:
            self.moved += sum(leaf.numel() * leaf.element_size() for leaf in inputs + outputs)
        for leaf in fresh:
            self._hold(leaf.untyped_storage())
        return result

    def _hold(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.alive += storage.nbytes()
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.alive -= self._sizes.pop(key, 0)
