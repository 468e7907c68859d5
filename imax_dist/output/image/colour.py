"""From one profile to another, 16 bits a channel, band by band (lcms, through libvips)."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imax_dist.errors import BadValue
from imax_dist.output.image.bands import Band, Bands
from imax_dist.output.image.dither import quantised
from imax_dist.output.image.profile import Profile
from imax_dist.output.image.vips import library

SAMPLED = 4
"""Every fourth pixel of every fourth row is asked whether the paper can show it."""
VISIBLE = 5.0
"""CIEDE2000 by which a colour must move to count as out of gamut; coarse profiles' own tables err by 4."""
INK_STEPS = 400


@dataclass
class ColourReport:
    """What the conversion did, counted as the bands go through."""

    pixels: int = 0
    moved: int = 0
    ink: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(INK_STEPS + 1, np.int64))

    def lines(self) -> dict[str, float]:
        """``out_of_gamut`` (share of pixels), and for CMYK the highest ink and that of 99.9 % (percent)."""
        found = {"out_of_gamut": round(self.moved / max(self.pixels, 1), 4)}
        if self.ink.any():
            share = self.ink.cumsum() / self.ink.sum()
            found["ink_percent_highest"] = float(np.flatnonzero(self.ink)[-1])
            found["ink_percent_999_of_1000"] = float(np.searchsorted(share, 0.999))
        return found

    def sentences(self) -> list[str]:
        """The same for a person."""
        found = self.lines()
        text = [f"out of gamut: {100 * found['out_of_gamut']:.1f} % of the pixels lose colour on this device"]
        if "ink_percent_highest" in found:
            most, usual = found["ink_percent_highest"], found["ink_percent_999_of_1000"]
            text.append(f"total ink: {most:.0f} % at most, 99.9 % of the pixels within {usual:.0f} %")
        return text


def converted(
    bands: Bands, profiles: tuple[Profile, Profile], *, intent: str, black_point: bool
) -> tuple[Bands, ColourReport]:
    """``bands`` from the first profile to the second in 16 bits, and a report that fills as they are read.

    Raises BadValue where there is no way from one to the other.
    """
    pyvips = library()
    source, target = profiles
    if source.space != "RGB":
        raise BadValue(f"the picture is {source.space} already ({source.name}); take the RGB original")
    report = ColourReport()
    files = _ProfileFiles(source, target)

    def convert(band: Band) -> Band:
        try:
            return convert_band(band)
        except pyvips.Error as error:
            detail = " ".join(error.detail.split())
            raise BadValue(
                f"cannot convert from profile {source.name!r} to {target.name!r}: {detail}"
            ) from error

    def convert_band(band: Band) -> Band:
        wide = quantised(band, 16) if band.dtype != np.uint16 else band
        image = _image(pyvips, wide)
        options = {"intent": intent, "black_point_compensation": black_point}
        new = image.icc_transform(
            files.target, input_profile=files.source, embedded=False, depth=16, **options
        )
        pixels = np.ndarray(
            (len(band), band.shape[1], target.channels), np.uint16, new.cast("ushort").write_to_memory()
        )
        _count(report, pyvips, wide, files)
        if target.space == "CMYK":
            total = pixels.sum(axis=2, dtype=np.uint32) * (100 / 65_535)
            report.ink += np.bincount(np.rint(total).astype(int).ravel(), minlength=INK_STEPS + 1)
        return pixels

    return bands.changed(convert, channels=target.channels, bits=16), report


class _ProfileFiles:
    """Both profiles as files, since libvips reads them by name; they go with this object."""

    def __init__(self, source: Profile, target: Profile) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="imax-icc-")
        self.source = self._write("source.icc", source)
        self.target = self._write("target.icc", target)

    def _write(self, name: str, profile: Profile) -> str:
        path = Path(self._folder.name) / name
        path.write_bytes(profile.data)
        return str(path)


def _image(pyvips: Any, band: Band) -> Any:
    rows, width, channels = band.shape
    memory = np.ascontiguousarray(band).data
    return pyvips.Image.new_from_memory(memory, width, rows, channels, "ushort").copy(interpretation="rgb16")


def _count(report: ColourReport, pyvips: Any, band: Band, files: _ProfileFiles) -> None:
    """Colours there and back by the colorimetric way: those that do not return are not in the gamut."""
    image = _image(pyvips, band[::SAMPLED, ::SAMPLED])
    way = {"intent": "relative", "black_point_compensation": True}
    there = image.icc_transform(files.target, input_profile=files.source, depth=16, **way)
    back = there.icc_transform(files.source, input_profile=files.target, depth=16, **way)
    before, after = (
        each.icc_import(input_profile=files.source, embedded=False, intent="relative", pcs="lab")
        for each in (image, back.copy(interpretation="rgb16"))
    )
    moved = np.ndarray(
        (image.height, image.width), np.float32, before.dE00(after).cast("float").write_to_memory()
    )
    report.pixels += moved.size
    report.moved += int((moved > VISIBLE).sum())
