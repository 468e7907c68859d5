"""A prompt as the networks take it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

Prompt: TypeAlias = Mapping[str, Tensor]
"""One embedded text: tensors under the names that its network's ``embed`` gives them."""


@dataclass(frozen=True)
class Conditioning:
    """What a pass is conditioned on; the same tensors on every rank."""

    positive: Prompt
    negative: Prompt | None = None
    """The empty prompt, where a pass uses classifier-free guidance."""

    def to_tensors(self) -> dict[str, Tensor]:
        """All tensors under one name each, for a broadcast."""
        return dict(self._named())

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for name, prompt in (("positive", self.positive), ("negative", self.negative)):
            yield from ((f"{name}.{key}", tensor) for key, tensor in (prompt or {}).items())

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Conditioning:
        """The inverse of ``to_tensors``."""
        prompts: dict[str, dict[str, Tensor]] = {"positive": {}, "negative": {}}
        for name, tensor in tensors.items():
            prompt, _, key = name.partition(".")
            prompts[prompt][key] = tensor
        return cls(prompts["positive"], prompts["negative"] or None)
