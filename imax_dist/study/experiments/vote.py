"""The vote (A.1): which of two pictures of one caption a vision-language model prefers.

Each pair is asked twice, in both orders; a judge that follows the order and not the pictures makes a
tie. Answers are kept with their reasons, and a vote that stops goes on from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imax_dist.errors import ImaxError
from imax_dist.output.image.png import png_bytes, read_pixels
from imax_dist.study.experiments.bradley_terry import Vote
from imax_dist.study.experiments.draw import ResultCache
from imax_dist.study.experiments.endpoint import Endpoint, EndpointFailed
from imax_dist.study.metrics.frechet import cut_patches
from imax_dist.study.scenes import caption, sample_scene
from imax_dist.study.train.crops import HELD_OUT

Pixels = npt.NDArray[np.uint8]
VERSION = 1
MOST_NONSENSE = 3
"""Unreadable answers in a row after which the vote stops."""
SHARES = {"first": 1.0, "second": 0.0, "tie": 0.5}
QUESTION = """Two pictures were made for this caption: "{caption}"
First you see picture 1 and picture 2 whole, then {crops} crops of picture 1 at full size, then the same places of picture 2.
Which is the better picture? Judge, in this order: does it show what the caption says, each thing once;
is its detail sharp and sensible; is it free of blur, repeated parts, grids and specks.
Answer with JSON only: {{"winner": "first" or "second" or "tie", "reason": "one sentence"}}"""  # noqa: E501


@dataclass(frozen=True)
class Pair:
    """Two pictures of one scene at one size, by variant and key."""

    size: str
    scene: int
    one: tuple[str, str]
    other: tuple[str, str]


def pairs_of(found: Mapping[str, Any], *, only_baseline: bool) -> list[Pair]:
    """All pairs of variants of a study's results, scene by scene; or only those with the baseline."""
    baseline, names = found["baseline"], list(found["settings"]["variants"])
    by_place: dict[tuple[str, int], dict[str, str]] = {}
    for cell in found["cells"]:
        place = f"{cell['scale']:g}x {cell['size']}", cell["scene"]
        by_place.setdefault(place, {})[cell["variant"]] = cell["key"]
    return [
        Pair(size, scene, (one, keys[one]), (other, keys[other]))
        for (size, scene), keys in by_place.items()
        for i, one in enumerate(names)
        for other in names[i + 1 :]
        if keys[one] != keys[other] and (not only_baseline or baseline in (one, other))
    ]


@dataclass
class Ballot:
    """Asks and remembers. ``budget`` limits the questions of this start, answers kept do not count."""

    endpoint: Endpoint
    cache: ResultCache
    path: Path
    budget: int
    crops: int = 3
    questions: int = 0
    nonsense: int = 0

    def run(
        self, pairs: Sequence[Pair], *, on_progress: Callable[[int, int], None]
    ) -> tuple[list[Vote], str]:
        """The votes by pair, and why it stopped before the end (or nothing)."""
        kept = self._kept()
        votes: list[Vote] = []
        for done, pair in enumerate(pairs):
            try:
                shares = [self._share(pair, kept, swapped=swapped) for swapped in (False, True)]
            except ImaxError as error:
                return votes, str(error)
            record = [share for share in shares if share is not None]
            if len(record) == 2:
                votes.append(Vote(pair.one[0], pair.other[0], pair.scene, sum(record) / 2))
            on_progress(done + 1, len(pairs))
        return votes, ""

    def _share(self, pair: Pair, kept: dict[str, str], *, swapped: bool) -> float | None:
        """Share of the vote for ``pair.one`` in one order; None if the answer was nonsense."""
        name = self._name(pair, swapped=swapped)
        if name not in kept:
            if self.questions >= self.budget:
                raise EndpointFailed(f"the budget of {self.budget} questions is used up")
            self.questions += 1
            answer, reason = read_answer(self.endpoint.ask(*self._question(pair, swapped=swapped)))
            self.nonsense = 0 if answer else self.nonsense + 1
            if self.nonsense >= MOST_NONSENSE:
                raise EndpointFailed(f"{self.nonsense} answers in a row could not be read, last: {reason!r}")
            if not answer:
                return None
            kept[name] = answer
            self._keep(name, pair, answer=answer, reason=reason, swapped=swapped)
        share = SHARES[kept[name]]
        return 1 - share if swapped else share

    def _name(self, pair: Pair, *, swapped: bool) -> str:
        record = [VERSION, self.endpoint.model, pair.scene, pair.one[1], pair.other[1], swapped, self.crops]
        return hashlib.sha256(json.dumps(record).encode()).hexdigest()

    def _question(self, pair: Pair, *, swapped: bool) -> tuple[str, list[bytes]]:
        pictures = [read_pixels(self.cache.picture(key)) for _, key in (pair.one, pair.other)]
        pictures = pictures[::-1] if swapped else pictures
        text = QUESTION.format(caption=caption(sample_scene(HELD_OUT + pair.scene)), crops=self.crops)
        shown = [*pictures, *(crop for p in pictures for crop in crops_of(p, self.crops, pair.scene))]
        return text, [png_bytes(picture) for picture in shown]

    def _kept(self) -> dict[str, str]:
        """Answers of earlier starts; a line cut short by a crash is passed over."""
        found = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []:
            try:
                record = json.loads(line)
                found[record["name"]] = str(record["answer"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return {name: answer for name, answer in found.items() if answer in SHARES}

    def _keep(self, name: str, pair: Pair, *, answer: str, reason: str, swapped: bool) -> None:
        record = {
            "name": name, "size": pair.size, "scene": pair.scene, "one": pair.one[0],
            "other": pair.other[0], "swapped": swapped, "answer": answer, "reason": reason,
            "model": self.endpoint.model,
        }  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def crops_of(picture: Pixels, count: int, seed: int) -> list[Pixels]:
    """``count`` squares of half the shorter side, at places that are the same in both pictures."""
    if not count:
        return []
    return list(cut_patches(picture, size=min(picture.shape[:2]) // 2, count=count, seed=seed))


def read_answer(text: str) -> tuple[str, str]:
    """``winner`` and ``reason`` of an answer; no winner and the text itself if it says none."""
    for candidate in re.findall(r"\{[^{}]*\}", text, flags=re.DOTALL):
        try:
            record = json.loads(candidate)
        except ValueError:
            continue
        winner = str(record.get("winner", "")).strip().lower()
        if winner in SHARES:
            return winner, str(record.get("reason", ""))
    return "", text[:200]
