"""Draws and measures cells in one process, and keeps what it made in a cache that all studies share."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from imax_dist.geometry import ImageSize
from imax_dist.models.load import describe_model
from imax_dist.models.spec import ModelSpec
from imax_dist.output.atomic import write_json
from imax_dist.output.image.bands import bands_of_array
from imax_dist.output.image.pixels import to_eight_bit
from imax_dist.output.image.png import read_pixels, write_plain_png
from imax_dist.output.image.resample import scaled
from imax_dist.output.image.super_resolution import enlarged
from imax_dist.parallel.topology import Topology, pick_device
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.renderer import Renderer
from imax_dist.pipeline.request import Request
from imax_dist.study.experiments.cell import Cell
from imax_dist.study.experiments.measures import Sample, read_all
from imax_dist.study.experiments.velocity_loss import velocity_losses
from imax_dist.study.metrics.frechet import cut_patches, patch_features
from imax_dist.study.scenes import render
from imax_dist.study.train.autoencoder import decode, encode_mean
from imax_dist.study.train.crops import to_bytes, to_unit
from imax_dist.study.train.parts import vae_of

Pixels = npt.NDArray[np.uint8]
MEASURE_VERSION = 2
"""Raise it when a measure changes: pictures stay, numbers are read again."""
FEATURE_MODEL = "embedded"
"""The model whose encoder is the fixed feature space of the Frechet distance."""


@dataclass(frozen=True)
class ResultCache:
    """The cache: ``<key>.png`` and ``<key>.json`` in sub-folders of 256."""

    folder: Path

    def picture(self, key: str) -> Path:
        """Where a picture is or will be."""
        return self.folder / key[:2] / f"{key}.png"

    def record(self, key: str) -> Path:
        """Where its seconds and measures are."""
        return self.folder / key[:2] / f"{key}.json"

    def read(self, key: str) -> dict[str, Any]:
        """The record, or nothing; a record that does not parse counts as none."""
        try:
            found: dict[str, Any] = json.loads(self.record(key).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found

    def holds(self, key: str) -> bool:
        """Whether the picture, or the loss, is drawn; its measures may be of an earlier version."""
        record = self.read(key)
        return "seconds" in record and bool(record.get("loss") or self.picture(key).is_file())


def measured(record: dict[str, Any], names: list[str]) -> bool:
    """Whether a record holds these measures, read by the present code."""
    wanted = {name for name in names if name != "seconds"}
    return record.get("version") == MEASURE_VERSION and wanted <= set(record.get("values", {}))


@dataclass
class CellRenderer:
    """One process's models. ``names`` are the measures to read, Frechet features among them."""

    cache: ResultCache
    names: list[str]
    testbed: bool = True
    device: str = "auto"
    _specs: dict[str, ModelSpec] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)
    _renderer: Renderer | None = None
    _vae: Any = None

    def close(self) -> None:
        """Leave the world of one rank."""
        self._open.close()

    def spec(self, cell: Cell) -> ModelSpec:
        """The facts of the cell's model, read once."""
        name = cell.variant.model or cell.model
        if name not in self._specs:
            self._specs[name] = describe_model(name)
        return self._specs[name]

    def make(self, cell: Cell) -> str:
        """Draw and measure the cell unless the cache has it; returns its key."""
        spec = self.spec(cell)
        key = cell.key(spec)
        record = self.cache.read(key)
        if measured(record, self.names) and self.cache.holds(key):
            return key
        if cell.kind == "velocity_loss":
            return self._losses(cell, key)
        native = self._native(cell)
        picture, seconds = self._picture(cell, key, record)
        sample = self._sample(cell, picture, native)
        values: dict[str, Any] = read_all(sample, self.names)
        if "frechet" in self.names:
            values["frechet"] = self._features(picture, cell.number)
            self._true_features(cell, sample)
        write_json(self.cache.record(key), {"version": MEASURE_VERSION, "seconds": seconds, "values": values})
        return key

    def _losses(self, cell: Cell, key: str) -> str:
        started = time.process_time()
        values = velocity_losses(self._rendering().model(cell.request(), with_text_encoders=True), cell)
        seconds = time.process_time() - started
        write_json(
            self.cache.record(key),
            {"version": MEASURE_VERSION, "loss": True, "seconds": seconds, "values": values},
        )
        return key

    def _picture(self, cell: Cell, key: str, record: dict[str, Any]) -> tuple[Pixels, float]:
        path = self.cache.picture(key)
        if path.is_file() and "seconds" in record:
            return read_pixels(path), float(record["seconds"])
        started = time.process_time()
        picture = self._enlarged(cell) if cell.variant.enlarge else self._render(self._guided(cell))
        seconds = time.process_time() - started
        write_plain_png(path, picture)
        write_json(self.cache.record(key), {"seconds": seconds})
        return picture, seconds

    def _guided(self, cell: Cell) -> Request:
        """The request, with the true native render as its guide where the study asks for it."""
        if cell.guide == "native":
            return cell.request()
        self._native(cell)
        guide = str(self.cache.picture(cell.native_key(self.spec(cell))))
        return replace(cell.request(), guide=guide)

    def _native(self, cell: Cell) -> Pixels:
        path = self.cache.picture(cell.native_key(self.spec(cell)))
        if path.is_file():
            return read_pixels(path)
        if cell.guide == "truth":
            picture = render(cell.scene, cell.native.height, cell.native.width)
        else:
            picture = self._render(cell.native_request())
        write_plain_png(path, picture)
        return picture

    def _rendering(self) -> Renderer:
        if self._renderer is None:
            one = Topology.alone(pick_device(self.device, local_rank=0))
            self._renderer = Renderer(one, ParallelSettings(), open_group=self._open)
        return self._renderer

    def _render(self, request: Request) -> Pixels:
        rendering = self._rendering().render(request)
        assert rendering.pixels is not None
        return to_eight_bit(rendering.pixels)

    def _enlarged(self, cell: Cell) -> Pixels:
        """The native picture at the target size: Lanczos, or the user's network and Lanczos to fit; or the
        true render there, as it is or through the autoencoder."""
        if cell.variant.is_true:
            true = render(cell.scene, cell.size.height, cell.size.width)
            return true if cell.variant.enlarge == "truth" else self._rebuilt(true)
        bands = bands_of_array(self._native(cell).astype(np.float32) / 255)
        if cell.variant.enlarge != "lanczos":
            bands, _ = enlarged(bands, str(cell.variant.enlarge))
        rows = np.concatenate(list(scaled(bands, ImageSize(cell.size.width, cell.size.height)).read()))
        return to_eight_bit(torch.from_numpy(rows))

    @torch.no_grad()
    def _rebuilt(self, picture: Pixels) -> Pixels:
        rebuilt = to_bytes(
            decode(self._feature_vae(), encode_mean(self._feature_vae(), to_unit(picture[None])))
        )
        one: Pixels = rebuilt[0]
        return one

    def _feature_vae(self) -> Any:
        if self._vae is None:
            self._vae = vae_of(FEATURE_MODEL)
        return self._vae

    def _sample(self, cell: Cell, picture: Pixels, native: Pixels) -> Sample:
        scene = cell.scene if self.testbed else None
        truth = render(cell.scene, cell.size.height, cell.size.width) if self.testbed else None
        return Sample(picture, native, cell.scale, scene, truth)

    def _features(self, picture: Pixels, number: int) -> list[list[float]]:
        """Features of patches of a picture, at places that depend on the scene's number only."""
        features = patch_features(self._feature_vae(), cut_patches(picture, seed=number))
        return [[round(value, 5) for value in row] for row in features.tolist()]

    def _true_features(self, cell: Cell, sample: Sample) -> None:
        """The truth's features, once for each scene and size."""
        path = _truth(self.cache, cell)
        if not path.is_file() and sample.truth is not None:
            write_json(path, self._features(sample.truth, cell.number))


def true_features(cache: ResultCache, cell: Cell) -> list[list[float]]:
    """What ``CellRenderer`` kept of the truth."""
    found: list[list[float]] = json.loads(_truth(cache, cell).read_text(encoding="utf-8"))
    return found


def _truth(cache: ResultCache, cell: Cell) -> Path:
    return cache.folder / f"truth-{MEASURE_VERSION}" / f"{cell.number}-{cell.size}.json"
