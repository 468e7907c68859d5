"""Seconds, CPU seconds, peak memory and size of every kind of print file, one process each.

The source is a 16-bit TIFF made here in bands, with the noise and edges of a photograph. Prints a Markdown
row a file. Peak memory is the process's largest resident set, Python and its libraries (about 0.1 GiB)
included. CPU seconds count all threads; other work on the machine hardly lengthens them.

    python -m tests.bench.print [--size 20000x28000] [--icc shop.icc] [--kinds tif,png] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from imax_dist.geometry import ImageSize
from imax_dist.output.image.bands import ROWS, Band, Bands
from imax_dist.output.image.finish import finish
from imax_dist.output.image.reader import Picture, open_picture
from imax_dist.output.image.settings import FinishSettings

KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "tif 8": ("p8.tif", {"bits": 8}),
    "tif 16": ("p16.tif", {"bits": 16}),
    "png 8": ("p8.png", {"bits": 8}),
    "png 16": ("p16.png", {"bits": 16}),
    "jpg": ("p.jpg", {}),
    "pdf": ("p.pdf", {"crop_marks": True}),
    "pdf lossless": ("pl.pdf", {"lossless": True}),
}
CMYK: dict[str, tuple[str, dict[str, object]]] = {
    "tif cmyk": ("pc.tif", {"bits": 8}),
    "pdf cmyk": ("pc.pdf", {}),
}


def photograph(size: ImageSize) -> Bands:
    """Waves, a grid of edges and grain, 16 bits; made as it is read."""

    def read() -> Iterator[Band]:
        grain = np.random.default_rng(0).normal(0, 400, (ROWS, size.width, 1))
        columns = np.arange(size.width)
        for top in range(0, size.height, ROWS):
            rows = np.arange(top, min(top + ROWS, size.height))[:, None]
            wave = 32_000 + 20_000 * np.sin(rows / 700) * np.cos(columns / 900)
            edges = 6_000 * (((rows // 400) + (columns // 400)) % 2)
            plane = (wave + edges)[..., None] + grain[: len(rows)]
            yield np.clip(plane * np.array([1.0, 0.85, 0.7]), 0, 65_535).astype(np.uint16)

    return Bands(size, 3, 16, read)


def measure(source: Path, target: Path, settings: dict[str, object]) -> dict[str, float]:
    """Finish one file in this process."""
    started, used = time.perf_counter(), time.process_time()
    finish(open_picture(source), target, FinishSettings(**settings))  # type: ignore[arg-type]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - used,
        "gib": peak / 2**20,
        "megabytes": target.stat().st_size / 1e6,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="20000x28000")
    parser.add_argument("--icc", help="CMYK profile: measures CMYK files too")
    parser.add_argument("--kinds", help="only these, by the beginning of their names, comma between")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        source, target, settings = json.loads(options.one)
        print(json.dumps(measure(Path(source), Path(target), settings)))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run_all(Path(folder), options)
    return 0


def run_all(folder: Path, options: argparse.Namespace) -> None:
    """Make the source, then every kind in a process of its own."""
    size = ImageSize.parse(options.size)
    source = folder / "source.tif"
    finish(Picture(photograph(size)), source, FinishSettings(bits=16))
    heads = f"| {size}, {size.megapixels:.0f} MP | seconds | CPU seconds | peak GiB | file MB |"
    print(f"{heads}\n|---|---|---|---|---|", flush=True)
    kinds = dict(KINDS)
    if options.icc:
        kinds |= {name: (file, {**rest, "icc": options.icc}) for name, (file, rest) in CMYK.items()}
    wanted = tuple(options.kinds.split(",")) if options.kinds else ("",)
    for name, (file, settings) in kinds.items():
        if not name.startswith(wanted):
            continue
        target = folder / file
        task = json.dumps([str(source), str(target), {**settings, "dpi": 200}])
        command = [sys.executable, "-m", "tests.bench.print", "--one", task]
        told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=3600).stdout
        row = json.loads(told)
        target.unlink()
        timed = f"{row['seconds']:.1f} | {row['cpu']:.1f}"
        print(f"| {name} | {timed} | {row['gib']:.2f} | {row['megabytes']:.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
