"""HEIC, the photographs of phones, where libvips has no decoder for them: through pi-heif (extra ``heic``).

libvips' own wheels read the header of such a file and lack the HEVC decoder for its pixels. pi-heif decodes
only; its sibling pillow-heif brings an encoder under the GPL.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from imax_dist.errors import BadManifest
from imax_dist.output.image.vips import library
from imax_dist.wording import first_line

KINDS = {"uint8": ("uchar", "srgb"), "uint16": ("ushort", "rgb16")}
"""numpy's name of a sample -> libvips' names of it and of its colour space."""


def decode_heic(path: Path) -> Any:
    """libvips' image of the decoded pixels, turned as the file says. Raises BadManifest if it is damaged.

    Samples of 10 and 12 bits fill 16, as libvips has them.
    """
    import pi_heif

    try:
        found = pi_heif.open_heif(path, convert_hdr_to_8bit=False)
        samples = np.ascontiguousarray(np.asarray(found))
    except (OSError, ValueError, RuntimeError, SyntaxError) as error:
        raise BadManifest(f"{path} cannot be read to its end: {first_line(error)}") from error
    height, width = samples.shape[:2]
    bands = 1 if samples.ndim == 2 else samples.shape[2]
    kind, space = KINDS[samples.dtype.name]
    image = library().Image.new_from_memory(samples.tobytes(), width, height, bands, kind)
    return image.copy(interpretation=space)


def has_pi_heif() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("pi_heif") is not None


def require_decoder(path: Path) -> None:
    """Raise BadManifest for a HEIC file that nothing here decodes."""
    if has_pi_heif():
        return
    try:
        library().Image.heifload(str(path)).crop(0, 0, 1, 1).avg()
    except library().Error as error:
        raise BadManifest(
            f"{path} is a HEIC file, and the libvips here has no decoder for it; pip install "
            "'imax-dist[heic]', or save it as JPEG or PNG"
        ) from error
