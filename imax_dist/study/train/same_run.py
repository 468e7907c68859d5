"""A training folder holds one run: what it learns from is kept in its checkpoint and compared on resuming."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imax_dist.errors import BadManifest
from imax_dist.pipeline.checkpoint import content_hash
from imax_dist.settings_mapping import fingerprint, to_mapping
from imax_dist.study.scenes.caption import vocabulary
from imax_dist.study.train.crops import CropBank
from imax_dist.study.train.latents import Buckets
from imax_dist.study.train.text import Tokenizers

Origin = dict[str, str]
"""SHA-256 of each thing that a run learns from, by its name in a message."""
FREE = ("save_every", "log_every")
"""Settings that may change within a run."""


def origin_of(
    buckets: Buckets, tokenizers: Tokenizers, teacher: torch.nn.Module | None, *, teaching: object = None
) -> Origin:
    """What a flow learns from; ``teaching`` are the settings, a dataclass, by which its teacher teaches."""
    clip, t5 = tokenizers.ids(list(vocabulary()))
    taught_by = {} if teacher is None else teacher.state_dict()
    data = {f"{height}x{width}": bucket.tokens for (height, width), bucket in sorted(buckets.items())}
    return {
        "data": content_hash({}, data),
        "tokenizers": content_hash({}, {"clip": clip, "t5": t5}),
        "teacher": content_hash({}, {name: value.cpu() for name, value in taught_by.items()}),
        "teaching": fingerprint(None if teaching is None else to_mapping(teaching)),
    }


def origin_of_crops(bank: CropBank) -> Origin:
    """What an autoencoder learns from."""
    found = hashlib.sha256()
    for share, pictures in bank.pictures:
        found.update(f"{share} {len(pictures)}".encode())
        for picture in pictures:
            found.update(picture.data)
    return {"pictures": found.hexdigest()}


def require_unused(path: Path, *others: Path) -> None:
    """Raise BadManifest if a run cannot start at the checkpoint ``path``, which is not there, since some of
    ``others``, files that a run writes after its first checkpoint, are."""
    there = [other.name for other in others if other.exists()]
    if there:
        raise BadManifest(
            f"{path.parent} holds {' and '.join(there)} of another run, and no {path.name} to resume; "
            f"use another --out, or remove {'it' if len(there) == 1 else 'them'}"
        )


def require_same_run(
    path: Path, facts: Mapping[str, Any], settings: Mapping[str, Any], origin: Origin
) -> None:
    """Raise BadManifest if the checkpoint ``path`` with ``facts`` is of a run with other settings, or that
    learnt from something else. What a checkpoint of an earlier version does not say is not compared."""
    before, learnt = facts["settings"], facts.get("origin", {})
    now = json.loads(json.dumps(settings))
    changed = [
        f"{name} {before.get(name)} there, {value} here"
        for name, value in now.items()
        if before.get(name) != value and name not in FREE
    ]
    if changed:
        raise BadManifest(f"{path} is of a run with other settings ({'; '.join(changed)}); use another --out")
    other = [name for name, value in origin.items() if learnt.get(name, value) != value]
    if other:
        raise BadManifest(f"{path} is of a run with other inputs ({', '.join(other)}); use another --out")
