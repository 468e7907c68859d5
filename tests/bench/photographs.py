"""Photographs, made smaller and enlarged again: what each way gets back, loses and invents.

The photographs are those in the package scikit-image (``pip install --no-deps scikit-image``; only its files
are read) whose sides hold twice 256 px: astronaut and hubble (NASA, public domain), camera and brick (CC0,
grey). The truth is a crop of ``--scale`` times the model's native side, the picture given one of native size.
The model that ships has seen drawn scenes and no photograph, and neither has its autoencoder: its own ceiling
stands beside the others.

    python -m tests.bench.photographs [--out DIR] [--scale 2] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from imax_dist import Renderer, Request
from imax_dist.models.base import FlowModel
from imax_dist.models.load import describe_model
from imax_dist.output.image.pixels import to_eight_bit
from imax_dist.output.image.sheet import write_sheet
from imax_dist.study.metrics.bands import layout_agreement
from imax_dist.study.metrics.edges import detail_correlation, match_edges
from imax_dist.study.metrics.spectrum import detail_against_truth
from imax_dist.super_resolution.network import network_of, read_weights

Pixels = npt.NDArray[np.uint8]
PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "camera": "camera.png",
    "brick": "brick.png",
    "hubble": "hubble_deep_field.jpg",
}
WAYS: dict[str, dict[str, Any]] = {
    "upscale, strength 0": {"strength": 0.0},
    "upscale, strength .2": {"strength": 0.2},
    "upscale, strength .4": {"strength": 0.4},
    "quick": {"preset": "quick"},
    "quick, bicubic": {"preset": "quick", "method": {"reference": {"upsample": "pixels"}}},
    "imax": {"preset": "imax"},
    "imax by Real-ESRGAN": {"preset": "imax", "method": {"reference": {"upsample": "network"}}},
}


def photograph(name: str, side: int) -> Pixels:
    """The upper left (side, side, 3)."""
    found = find_spec("skimage")
    if found is None or found.origin is None:
        sys.exit("the photographs come with scikit-image: pip install --no-deps scikit-image")
    with Image.open(Path(found.origin).parent / "data" / PHOTOGRAPHS[name]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    if min(pixels.shape[:2]) < side:
        sys.exit(
            f"{name} is {pixels.shape[1]}x{pixels.shape[0]}, smaller than {side} px; take a smaller --scale"
        )
    return pixels[:side, :side]


def made(renderer: Renderer, truth: Pixels, small: Image.Image, folder: Path) -> dict[str, Pixels]:
    """The photograph enlarged in every way."""
    size = (truth.shape[1], truth.shape[0])
    small.save(folder / "guide.png")
    ways = {"bicubic": np.asarray(small.resize(size, Image.Resampling.BICUBIC))}
    network = network_of("realesrgan-x4plus", read_weights("realesrgan-x4plus"))
    given = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        large = to_eight_bit(network(given)[0].clamp(0, 1).permute(1, 2, 0))
    ways["Real-ESRGAN"] = np.asarray(Image.fromarray(large).resize(size, Image.Resampling.BICUBIC))
    for name, fields in WAYS.items():
        sides = f"{size[0]}x{size[1]}"
        request = Request("a photograph", size=sides, guide=str(folder / "guide.png"), **fields)
        pixels = renderer.render(request).pixels
        assert pixels is not None
        ways[name] = to_eight_bit(pixels)
    ways["autoencoder ceiling"] = rebuilt(renderer.model(request, with_text_encoders=True), truth)
    return ways


@torch.no_grad()
def rebuilt(model: FlowModel, truth: Pixels) -> Pixels:
    """The truth through the model's autoencoder."""
    pixels = torch.from_numpy(truth.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    decoded = model.decode_image(model.encode_image(pixels, noise=None))
    return to_eight_bit((decoded[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).float())


def row(picture: Pixels, truth: Pixels, small: Image.Image) -> str:
    """PSNR, colours kept, edges, detail that is the truth's, and how much detail there is."""
    scale = truth.shape[0] // small.height
    numbers = (
        10 * np.log10(255**2 / float(np.square(picture.astype(float) - truth).mean())),
        layout_agreement(picture, np.asarray(small)),
        match_edges(picture, truth).f1,
        detail_correlation(picture, truth, factor=scale),
        detail_against_truth(picture, truth, factor=scale),
    )
    return "{:.1f} | {:.1f} | {:.2f} | {:.2f} | {:+.2f}".format(*numbers)


def main() -> None:
    """Print the table; write the pictures side by side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("photographs"))
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=tuple(PHOTOGRAPHS), default=list(PHOTOGRAPHS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    native = describe_model("embedded").settings.native_side
    print("| photograph | way | PSNR, dB | layout, dB | edges, F1 | true detail | amount of detail |")
    print("|---|---|---|---|---|---|---|")
    with Renderer() as renderer:
        for name in options.only:
            truth = photograph(name, options.scale * native)
            small = Image.fromarray(truth).resize((native, native), Image.Resampling.BOX)
            ways = made(renderer, truth, small, options.out)
            for way, picture in ways.items():
                print(f"| {name} | {way} | {row(picture, truth, small)} |", flush=True)
            shown = {**ways, "truth": truth}
            write_sheet(
                options.out / f"{name}.png", list(shown.values()), columns=len(shown), heads=list(shown)
            )


if __name__ == "__main__":
    main()
