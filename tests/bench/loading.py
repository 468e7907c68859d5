"""How long loading takes against reading the file: a tenth of FLUX.1, as folder, single file and fp8.

    python tests/bench/loading.py [--blocks 2 4] [--folder DIR]

Writes about 2.4 GB twice and 1.2 GB once; prints a table. Cold: the file's pages are given back first.
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

import torch
from safetensors.torch import save_file

from imax_dist.config import load_named
from imax_dist.models.files.conversion import without_memory

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from original_names import flux1

LOAD = """
import sys, time
import torch, diffusers
from pathlib import Path
from diffusers import FluxTransformer2DModel
from diffusers.loaders import single_file_model
from imax_dist.models.weights import load_complete
def peak():  # not getrusage's, which a process takes over from the one that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
started, cpu = time.perf_counter(), time.process_time()
network = load_complete(FluxTransformer2DModel, Path(sys.argv[1]), torch_dtype=torch.bfloat16)
total = sum(float(x.flatten()[::1024].float().sum()) for x in network.parameters())  # every page is read
taken, cpu = time.perf_counter() - started, time.process_time() - cpu
print(taken, cpu, (peak() - before) / 1e6)
"""


def write(folder: Path, blocks: tuple[int, int], kind: str) -> Path:
    """The transformer's folder in one of the three forms; values repeat, which no reader can tell."""
    from diffusers import FluxTransformer2DModel

    table = load_named("architectures", "flux-dev")["components"]["transformer"]
    config = {**table, "num_layers": blocks[0], "num_single_layers": blocks[1]}
    network = without_memory(FluxTransformer2DModel, config)
    noise = torch.randn(1 << 20, dtype=torch.float32).to(torch.bfloat16)
    tensors = {}
    for name, x in network.state_dict().items():
        times = -(-x.numel() // noise.numel())
        tensors[name] = noise.repeat(times)[: x.numel()].reshape(x.shape)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if kind != "folder":
        tensors = {name: x.contiguous() for name, x in flux1(tensors).items()}
        (folder / "single_file.json").write_text(json.dumps({"prefix": ""}))
    if kind == "fp8":
        tensors = {n: x.to(torch.float8_e4m3fn) if x.ndim == 2 else x for n, x in tensors.items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    return folder


def read(file: Path) -> tuple[float, float]:
    """Seconds and CPU seconds to read the file once, in pieces of 8 MiB into one buffer."""
    buffer = bytearray(8 << 20)
    started, cpu = time.perf_counter(), time.process_time()
    with file.open("rb", buffering=0) as opened:
        while opened.readinto(buffer):
            pass
    return time.perf_counter() - started, time.process_time() - cpu


def forget(file: Path) -> None:
    """Give the file's pages back to the machine."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def load(folder: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds and GB of a process of its own, imports left out."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, check=True
    )
    seconds, cpu, memory = map(float, done.stdout.split()[-3:])
    return seconds, cpu, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, nargs=2, default=(2, 4), metavar=("DOUBLE", "SINGLE"))
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        print("| form | GB | pages | read s | load s | ratio | CPU s of reading | of loading | memory GB |")
        print("|---|---|---|---|---|---|---|---|---|")
        for kind in ("folder", "single file", "fp8"):
            folder = write(Path(root) / kind, tuple(options.blocks), kind)
            file = folder / "diffusion_pytorch_model.safetensors"
            for pages in ("cold", "warm"):
                reset = forget if pages == "cold" else read
                reset(file)
                seconds, cpu = read(file)
                reset(file)
                taken, loading, memory = load(folder)
                size = file.stat().st_size / 1e9
                row = [size, pages, seconds, taken, taken / seconds, cpu, loading, memory]
                cells = [kind, *(f"{x:.2f}" if isinstance(x, float) else x for x in row)]
                print(f"| {' | '.join(cells)} |", flush=True)
            file.unlink()


if __name__ == "__main__":
    main()
