"""What a model in one file is, told by its tensors' names: ComfyUI's and the authors' own way to keep one."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from imax_dist.errors import BadValue, MissingInput
from imax_dist.wording import first_line, plural

PICKLED = (".ckpt", ".bin", ".pt", ".pth")
SINGLE = (".safetensors", ".gguf", ".sft")
OTHERWISE = "v1"
"""What diffusers calls a file whose names it does not know."""
ADVICE = (
    "give the pipeline's folder in diffusers layout or its hub id; a transformer in a .gguf file "
    "goes into the folder's imax.yaml as quantize: FILE.gguf"
)


def refuse_single_file(name: str) -> None:
    """Raise BadValue for a file instead of a folder, saying what it is; MissingInput if it is not there."""
    file = Path(name)
    if file.suffix in PICKLED and (file.is_file() or name.count("/") != 1):
        raise BadValue(f"model {name} is a pickled file ({file.suffix}), which is never opened; {ADVICE}")
    if file.suffix not in SINGLE:
        return
    if not file.is_file():
        raise MissingInput(f"model file {name} does not exist")
    what = "a .gguf file" if file.suffix == ".gguf" else _kind(file)
    raise BadValue(f"model {name} is a single file ({what}), which is not loaded; {ADVICE}")


def _kind(file: Path) -> str:
    """``780 tensors, flux-dev by their names``, from the header alone."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    try:
        with safe_open(file, framework="pt") as opened:
            shapes = {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadValue(f"model {file} is not a readable .safetensors file: {first_line(error)}") from error
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    kind = infer_diffusers_model_type(tensors)
    known = f"{kind} by their names" if kind != OTHERWISE else "of no network that diffusers knows"
    return f"{plural(len(shapes), 'tensor')}, {known}"
