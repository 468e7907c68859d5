"""The VAE exact, tiled and by distvae: seconds, memory, error; and a whole poster decoded and written.

``python -m tests.bench.vae`` prints Markdown rows for a decode of ``--side`` pixels with the embedded model's
VAE, one thread a process, each case in fresh processes; errors are against the plain decode, the latents are
those of a drawn scene, enlarged. ``--poster SIDE --out FILE.tif`` decodes and writes one poster instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CASES = [("whole", 1), ("rows", 1), ("tiled", 1), ("rows", 2), ("distvae", 2)]
SMALL_GIB = 0.0625


def make_latents(side: int, path: Path) -> None:
    """A scene of 512 px, encoded, its latents enlarged (bicubic) to those of ``side`` px."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    from imax_dist.models.load import load_model
    from imax_dist.study.scenes.render import render
    from imax_dist.study.scenes.spec import sample_scene

    model = load_model("embedded", device=torch.device("cpu"), with_text_encoders=False)
    drawn = torch.from_numpy(render(sample_scene(3), 512, 512)).float() / 127.5 - 1
    latents = model.encode_image(drawn.permute(2, 0, 1)[None].contiguous(), noise=None)
    torch.save(F.interpolate(latents, size=(side // 8, side // 8), mode="bicubic"), path)


def worker(way: str, folder: Path) -> None:
    """One rank's decode; rank 0 prints JSON and compares with the plain picture, if there is one."""
    import torch

    from imax_dist.models.libraries import quiet_libraries
    from imax_dist.models.load import load_model
    from imax_dist.parallel.topology import detect, process_group
    from imax_dist.pipeline.memory import peak_memory

    torch.set_num_threads(1)
    quiet_libraries()
    topology = detect(device="cpu")
    with process_group(topology), torch.no_grad():
        model: Any = load_model("embedded", device=topology.device, with_text_encoders=False)
        latents = torch.load(folder / "latents.pt", weights_only=True)
        before = peak_memory()["host"]
        started, cpu = time.perf_counter(), time.process_time()
        pixels = _picture(way, model, latents, topology=topology)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        peak = peak_memory()["host"] - before
        if pixels is None or not topology.is_first:
            return
        reference = folder / "whole.pt"
        if way == "whole":
            torch.save(pixels, reference)
        error = (pixels - torch.load(reference, weights_only=True)).abs()
        report = {"seconds": seconds, "cpu": cpu, "peak": peak}
        print(json.dumps({**report, "largest": float(error.max()), "mean": float(error.mean())}))


def _picture(way: str, model: Any, latents: Any, *, topology: Any) -> Any:
    """(H, W, 3) in [0, 1] on rank 0."""
    import torch.distributed as dist

    if way == "distvae":
        from distvae.vae.parallel import parallelize_decoder  # type: ignore[import-not-found,unused-ignore]

        parallelize_decoder(model.vae, dist.group.WORLD)
        return (model.decode_image(latents)[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)
    decoded = _decode(model, latents, topology=topology, way=way)
    return None if decoded is None else decoded.whole()


def _decode(model: Any, latents: Any, *, topology: Any, way: str, gib: float | None = None) -> Any:
    from imax_dist.pipeline.decode import decode
    from imax_dist.pipeline.plan import make_plan
    from imax_dist.pipeline.ranks import ParallelSettings, join_for
    from imax_dist.pipeline.request import Request
    from imax_dist.pipeline.vae_runner import VaeRunner

    size = f"{8 * latents.shape[3]}x{8 * latents.shape[2]}"
    method = {"vae": "tiled"} if way == "tiled" else {}
    plan = make_plan(Request("a scene", size=size, method=method), model.spec)
    memory = {"whole": 100.0, "rows": SMALL_GIB}.get(way, gib)
    ranks = join_for(model, ParallelSettings(vae_memory_gib=memory), topology)
    runner = VaeRunner.for_plan(plan, model, ranks)
    print(f"strategy {runner.strategy.name}", file=sys.stderr)
    return decode(plan, runner, latents)


def poster(side: int, out: Path, gib: float) -> None:
    """Decode and write one poster in this process; prints seconds and the peak of the whole process."""
    import torch

    from imax_dist.models.load import load_model
    from imax_dist.output.image.poster import write_poster
    from imax_dist.output.image.verify import verify
    from imax_dist.parallel.topology import detect
    from imax_dist.pipeline.memory import peak_memory

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        latents = Path(folder) / "latents.pt"
        arguments = [sys.executable, "-m", "tests.bench.vae", "--latents", str(latents), "--side", str(side)]
        subprocess.run(arguments, check=True)
        model = load_model("embedded", device=torch.device("cpu"), with_text_encoders=False)
        loaded = peak_memory()["host"]
        started, cpu = time.perf_counter(), time.process_time()
        picture = _decode(
            model, torch.load(latents, weights_only=True), topology=detect(device="cpu"), way="exact", gib=gib
        )
    report = {"side": side, "loaded_gib": loaded, "decode_s": time.perf_counter() - started}
    print(
        json.dumps({**report, "cpu_s": time.process_time() - cpu, "peak_gib": peak_memory()["host"]}),
        flush=True,
    )
    started = time.perf_counter()
    write_poster(out, picture.bands(), {"format": "imax-recipe/1", "request": {"prompt": "a scene"}})
    written = {"write_s": time.perf_counter() - started, "file_mb": out.stat().st_size / 1e6}
    print(json.dumps({**written, "peak_gib": peak_memory()["host"]}), flush=True)
    print(json.dumps({"verified": verify(out).matches, "peak_gib": peak_memory()["host"]}))


def table(side: int) -> None:
    """The Markdown rows."""
    print(
        "| way | processes | s | CPU s of rank 0 | peak above the model, MiB | largest error | mean error |"
    )
    print("|---|---|---|---|---|---|---|")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        make_latents(side, Path(folder) / "latents.pt")
        for way, ranks in CASES:
            started = [sys.executable]
            if ranks > 1:
                started += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
            arguments = ["-m", "tests.bench.vae", "--worker", way, "--folder", folder]
            done = subprocess.run(
                [*started, *arguments], check=True, env=environment, stdout=subprocess.PIPE, text=True
            )
            found = json.loads(done.stdout.strip().splitlines()[-1])
            figures = f"{found['seconds']:.1f} | {found['cpu']:.1f} | {found['peak'] * 1024:.0f}"
            print(
                f"| {way} | {ranks} | {figures} | {found['largest']:.1e} | {found['mean']:.1e} |", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--poster", type=int)
    parser.add_argument("--memory-gib", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("poster.tif"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--latents", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.latents:
        make_latents(options.side, options.latents)
    elif options.worker:
        worker(options.worker, options.folder)
    elif options.poster:
        poster(options.poster, options.out, options.memory_gib)
    else:
        table(options.side)


if __name__ == "__main__":
    main()
