"""Memory of ranks that load the same weights: which pages are shared on a node, which are each rank's own.

    python tests/bench/weights.py [--megabytes 500] [--ranks 1 2]

A FLUX pipeline with random weights in bfloat16, sharded; every rank loads it, all stay alive, and each reads
its own /proc/self/smaps_rollup. Linux only. In bfloat16 the tensors are the mapped file; in float32 they are
converted, which makes them a rank's own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from imax_dist.models.libraries import quiet_libraries
from imax_dist.models.load import load_model
from imax_dist.models.tiny import make_tiny

KEYS = ("Rss", "Pss", "Pss_Anon", "Pss_File", "Private_Clean", "Private_Dirty", "Shared_Clean")
LAYER_MB, WIDTH = 36 * 1024**2 * 2 / 1e6, 1024
"""A double-stream block of this width: 36 width^2 weights, about."""


def make_pipeline(folder: Path, megabytes: int) -> None:
    """FLUX.1-schnell's tiny pipeline with a transformer of about that size."""
    from diffusers import FluxTransformer2DModel

    make_tiny("flux-schnell", folder)
    layers = max(1, round(megabytes / LAYER_MB))
    transformer = FluxTransformer2DModel(
        in_channels=64, num_layers=layers, num_single_layers=0, attention_head_dim=128,
        num_attention_heads=WIDTH // 128, joint_attention_dim=32, pooled_projection_dim=32,
        axes_dims_rope=(16, 56, 56), guidance_embeds=False,
    )  # fmt: skip
    for old in (folder / "transformer").iterdir():
        old.unlink()
    transformer.to(torch.bfloat16).save_pretrained(folder / "transformer", max_shard_size="120MB")


def memory() -> dict[str, float]:
    """MB of this process by kind."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return {key: found[key] for key in KEYS}


def rank(folder: str, dtype: str, barrier: Any, results: Any) -> None:
    """Load, wait for the others, report what loading added."""
    quiet_libraries()
    torch.set_num_threads(1)
    import diffusers.models.transformers.transformer_flux  # noqa: F401

    load_model("embedded", device=torch.device("cpu"), with_text_encoders=False)  # the libraries' own memory
    before = memory()
    model = load_model(folder, device=torch.device("cpu"), dtype=dtype, with_text_encoders=False)
    sum(float(x.detach().float().sum()) for x in model.transformer.parameters())  # type: ignore[attr-defined]
    barrier.wait()
    after = memory()
    results.put({key: after[key] - before[key] for key in KEYS})
    barrier.wait()


def measure(folder: Path, ranks: int, dtype: str) -> list[dict[str, float]]:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(ranks), context.Queue()
    arguments = str(folder), dtype, barrier, results
    processes = [context.Process(target=rank, args=arguments) for _ in range(ranks)]
    for process in processes:
        process.start()
    found = [results.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    quiet_libraries()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "model"
        make_pipeline(folder, options.megabytes)
        size = sum(file.stat().st_size for file in folder.glob("*/*.safetensors")) / 1e6
        print(f"{size:.0f} MB of weights. MB that loading added, a rank (mean):")
        print("| dtype | ranks | " + " | ".join(KEYS) + " | node: all ranks' Pss |")
        print("|---" * (len(KEYS) + 3) + "|")
        for dtype in ("bfloat16", "float32"):
            for ranks in options.ranks:
                found = measure(folder, ranks, dtype)
                means = [sum(own[key] for own in found) / ranks for key in KEYS]
                cells = " | ".join(f"{value:.0f}" for value in means)
                print(f"| {dtype} | {ranks} | {cells} | {sum(own['Pss'] for own in found):.0f} |", flush=True)


if __name__ == "__main__":
    main()
