"""Put trained parts together as a FluxPipeline folder that diffusers loads as it is."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
import yaml
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline

from imax_dist.config import load_named
from imax_dist.errors import CannotWrite
from imax_dist.models.find import SETTINGS_FILE
from imax_dist.study.train.network import FlowNetwork
from imax_dist.study.train.text import Tokenizers

ORIGIN = ("_name_or_path", "is_local", "local_files_only")
"""Where a part was loaded from: nobody's business but its maker's."""


def assemble(
    network: FlowNetwork, vae: AutoencoderKL, tokenizers: Tokenizers, *, native_tokens: int = 64
) -> FluxPipeline:
    """A FluxPipeline of the trained parts. Always call it with ``max_sequence_length=24``."""
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_image_seq_len=native_tokens,
        max_image_seq_len=16 * native_tokens,
        base_shift=0.5,
        max_shift=1.15,
        shift=3.0,
    )
    return FluxPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=network.clip,
        tokenizer=tokenizers.clip,
        text_encoder_2=network.t5,
        tokenizer_2=tokenizers.t5,
        transformer=network.transformer,
    )


def save_pipeline(
    pipeline: FluxPipeline, folder: Path, *, native_side: int, dtype: torch.dtype = torch.float16
) -> int:
    """Write the pipeline in ``dtype`` and return its size in bytes; the folder appears whole.

    Beside it lie the embedded model's settings with this native side, for ``imax generate --model FOLDER``.

    Raises CannotWrite if ``folder`` holds anything: nothing is removed to make room.
    """
    if folder.is_symlink() or folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise CannotWrite(f"{folder} already exists; name another folder, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pipeline-") as temporary:
        fresh = Path(temporary) / folder.name
        pipeline.to(dtype).save_pretrained(fresh, safe_serialization=True)
        for file in fresh.rglob("*.safetensors"):
            file.chmod(0o644)  # safetensors writes for the owner only; weights are to be shared
        for file in fresh.rglob("*config.json"):
            config = json.loads(file.read_text(encoding="utf-8"))
            kept = {key: value for key, value in config.items() if key not in ORIGIN}
            file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        (fresh / SETTINGS_FILE).write_text(_settings(native_side), encoding="utf-8")
        fresh.rename(folder)
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _settings(native_side: int) -> str:
    like = load_named("models", "embedded")
    kept = {key: value for key, value in like.items() if key not in ("source", "about")}
    return yaml.safe_dump({**kept, "native_side": native_side}, sort_keys=False)
