"""A poster in the middle of its passes, on disk: safetensors with a few words of metadata.

One file holds all that the rest of the render needs (latents, reference, where it stands), for the whole
image, so that any number of ranks can go on from it. Nothing pickled is read. A hash over tensors and words
tells a changed bit from a good file (DECISIONS, entry 46).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.output.atomic import write_bytes
from imax_dist.output.own_files import own_files, remove_files, require_real_folder
from imax_dist.pipeline.last_step import LastStep
from imax_dist.pipeline.state import PassState

FORMAT = "imax-checkpoint/3"
FILES = r"step-\d+\.safetensors"
UNFINISHED = r"\.step-\d+-[0-9a-f]{12}\.safetensors"
"""What a killed process left (output/atomic.py)."""
STORED = {"latents", "reference", "pictures", "endpoints", "cached", "carried", "momentum"}
"""Names of the tensors in a file."""
KEPT = 2
LARGEST_BYTES = 8 << 30
"""Latents and reference of the largest picture in float64 take half of it; more is never read."""
PassKind = Literal["native", "extrapolated"]
Resume = Literal["auto", "never", "must"]


@dataclass(frozen=True)
class Checkpoint:
    """Where a pass stood, and of which poster: the fingerprint of its plan."""

    state: PassState
    fingerprint: str
    seed: int
    made_on: tuple[str, ...] = ()
    """The ranks that have made it, by ``Ranks.name``, in order; those that wrote it are the last."""

    @property
    def device(self) -> torch.device:
        return self.state.latents.device

    def to(self, device: torch.device) -> Checkpoint:
        """The same with its tensors on ``device``."""
        return replace(self, state=self.state.to(device))


def pass_kind(state: PassState) -> PassKind:
    """What files and events call the pass; those beyond native size are told apart by a number from 0."""
    return "native" if state.number == 0 else "extrapolated"


@dataclass(frozen=True)
class CheckpointFolder:
    """Where one poster's checkpoints go: every ``every`` steps, the last two are kept."""

    folder: Path
    every: int = 5
    resume: Resume = "auto"
    last: LastStep[Checkpoint] = field(default_factory=LastStep, compare=False, repr=False)
    """What is not on disk yet."""

    def due(self, step: int, steps: int) -> bool:
        return self.every > 0 and step % self.every == 0 and step < steps

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write whole or not at all, then drop all but the newest two."""
        state = checkpoint.state
        path = self.folder / f"step-{state.number}{state.step:05d}.safetensors"
        metadata = {
            "format": FORMAT,
            "phase": pass_kind(state),
            "pass": str(max(state.number - 1, 0)),
            "step": str(state.step),
            "fingerprint": checkpoint.fingerprint,
            "seed": str(checkpoint.seed),
            "made_on": json.dumps(checkpoint.made_on),
        }
        tensors = {name: tensor.contiguous().cpu() for name, tensor in state.to_tensors().items()}
        metadata["sha256"] = content_hash(metadata, tensors)
        require_real_folder(self.folder)
        write_bytes(path, save(tensors, metadata=metadata))  # save_file has its own temp file and mode
        for old in own_files(self.folder, FILES)[:-KEPT]:
            old.unlink(missing_ok=True)
        return path

    def save_last(self) -> None:
        """Write the last finished step now, from another thread than the one that computes the next."""
        with self.last.lock:
            checkpoint = self.last.take()
            if checkpoint is not None:
                self.save(checkpoint)

    def files(self) -> list[Path]:
        """Checkpoint files, newest step first."""
        found = require_real_folder(self.folder).glob("step-*.safetensors")
        return sorted((path for path in found if re.fullmatch(FILES, path.name)), reverse=True)

    def find(self, fingerprint: str) -> tuple[Checkpoint | None, list[str]]:
        """The newest usable checkpoint of this plan, and a sentence for each file passed over.

        With ``resume`` never nothing is looked for; with must it is an error (MissingInput, or BadManifest
        for a file that is damaged or of another poster) if none can be used.
        """
        if self.resume == "never":
            return None, []
        passed_over: list[str] = []
        for path in self.files():
            try:
                return read_checkpoint(path, fingerprint), passed_over
            except BadManifest as error:
                passed_over.append(str(error))
        if self.resume == "must":
            if passed_over:
                raise BadManifest(f"--resume must: {passed_over[0]}")
            raise MissingInput(f"--resume must: there is no checkpoint in {self.folder}; use --resume auto")
        return None, passed_over

    def remove(self) -> None:
        """The poster is done: its checkpoints and their folder go."""
        with self.last.lock:
            self.last.forget()
            remove_files(require_real_folder(self.folder), f"{FILES}|{UNFINISHED}")


def content_hash(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of the words (but ``sha256``) and of every tensor's name, dtype, shape and values."""
    words = {name: text for name, text in metadata.items() if name != "sha256"}
    found = hashlib.sha256(json.dumps(words, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def read_checkpoint(path: Path, fingerprint: str) -> Checkpoint:
    """Read one file. Raises BadManifest if it is damaged, foreign, or of another poster or settings."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise BadManifest(f"{path} cannot be used: it is larger than any checkpoint of this program")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise BadManifest(f"{path} is not a checkpoint of this program ({FORMAT})")
            if metadata["fingerprint"] != fingerprint:
                raise BadManifest(
                    f"{path} belongs to another poster or other settings; use --resume never to start over"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _checked(path, metadata, tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadManifest(f"{path} cannot be read as a checkpoint: {error}") from error


def _checked(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor]) -> Checkpoint:
    kind = metadata["phase"]
    if kind not in ("native", "extrapolated") or not STORED >= tensors.keys() >= {"latents"}:
        raise BadManifest(f"{path} cannot be read as a checkpoint: its pass or its tensors are not known")
    if metadata["sha256"] != content_hash(metadata, tensors):
        raise BadManifest(f"{path} cannot be used: its hash is not that of its content; it was damaged")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise BadManifest(f"{path} cannot be used: it holds numbers that are not finite")
    number = 0 if kind == "native" else 1 + int(metadata["pass"])
    state = PassState.from_tensors(number, int(metadata["step"]), tensors)
    made_on = tuple(str(each) for each in json.loads(metadata.get("made_on", "[]")))
    return Checkpoint(state, metadata["fingerprint"], int(metadata["seed"]), made_on)
