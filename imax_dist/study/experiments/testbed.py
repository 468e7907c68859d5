"""Whether a model draws the testbed's scenes, so that its pictures can be read."""

from __future__ import annotations

import json

from imax_dist.models.weights import find_model
from imax_dist.study.scenes.caption import vocabulary


def of_testbed(model: str) -> bool:
    """True if the model's second tokenizer holds exactly the words of the captions as whole pieces."""
    _, folder = find_model(model)
    try:
        text = (folder / "tokenizer_2" / "tokenizer.json").read_text(encoding="utf-8")
        pieces = {piece for piece, _ in json.loads(text)["model"]["vocab"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return {f"\u2581{word}" for word in vocabulary()} <= pieces and len(pieces) < 10 * len(vocabulary())
