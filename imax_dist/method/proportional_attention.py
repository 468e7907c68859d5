"""Proportional attention: sharper logits when more tokens compete. Sec. 2.3, item 3.

YaRN's temperature is another choice of the same factor, so that the two are never both on.
The factor is not applied in the attention: a rotation covers the whole head, so cosines and sines
times sqrt(factor) give every logit times the factor, for every kernel and every parallel scheme.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from imax_dist.shapes import RopeTable


class SequenceLengths(NamedTuple):
    """Token counts of the whole image, never of a shard.

    ``text`` counts every copy, ``text_once`` one; ``trained`` is the joint length at native size.
    """

    image: int
    text: int
    text_once: int
    trained: int
    scale: float


LogitFactor: TypeAlias = Callable[[SequenceLengths], float]


def entropy(length: int, trained: int) -> float:
    """sqrt(log_trained(length)): keeps the attention's entropy (Jin et al. 2023); 1 at equality.

    Raises ValueError unless both lengths exceed 1.
    """
    if length <= 1 or trained <= 1:
        raise ValueError(f"proportional attention needs lengths above 1, got {length}, {trained}")
    return math.sqrt(math.log(length) / math.log(trained))


def joint(lengths: SequenceLengths) -> float:
    """L counts the whole joint sequence with every text copy, as the authors' code does."""
    return entropy(lengths.image + lengths.text, lengths.trained)


def one_text(lengths: SequenceLengths) -> float:
    """L counts the image and one text, so that text copies do not change it (DECISIONS 5)."""
    return entropy(lengths.image + lengths.text_once, lengths.trained)


def printed(lengths: SequenceLengths) -> float:
    """The factor s as the paper's formula prints it; for ablation."""
    return lengths.scale


def yarn(lengths: SequenceLengths) -> float:
    """YaRN's temperature instead: cosines and sines times 0.1 ln s + 1, logits times its square."""
    return (0.1 * math.log(max(lengths.scale, 1.0)) + 1.0) ** 2


def by_component(lengths: SequenceLengths) -> float:
    """SEGA: no factor on every logit, since each rotary component has its own (``method/sega.py``)."""
    return off(lengths)


def off(lengths: SequenceLengths) -> float:
    """Logits as trained."""
    del lengths
    return 1.0


def fold_into_table(table: RopeTable, factor: float) -> RopeTable:
    """Scale cosines and sines by sqrt(factor), so that every logit is multiplied by ``factor``."""
    root = math.sqrt(factor)
    return RopeTable(cos=table.cos * root, sin=table.sin * root)


LOGIT_FACTORS: dict[str, LogitFactor] = {
    "joint": joint,
    "one_text": one_text,
    "printed": printed,
    "yarn": yarn,
    "sega": by_component,
    "off": off,
}
