"""Tensors as a file of a model stores them: names and shapes from its header, 8 and 4 bits made numbers.

Forms: plain; float8 as it is, or with ComfyUI's scale beside each weight; bitsandbytes' nf4 and fp4, whose
table of values and block maxima are in the file. The rest of a form is no tensor of a network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from imax_dist.errors import BadConfig, BadValue
from imax_dist.wording import file_size, first_line

SCALES = (".scale_weight", ".weight_scale")
"""Behind a layer's name: its weights' scale, of ComfyUI's older and newer fp8 files."""
WEIGHT = ".weight"
NOTE = ".comfy_quant"
NOTES = "_quantization_metadata"
"""Where ComfyUI notes a weight's form: behind its layer's name, or for all of them in the header."""
BESIDE = (*SCALES, ".scale_input", ".input_scale", NOTE, ".absmax", ".quant_map")
NESTED = (".nested_absmax", ".nested_quant_map")
MARKERS = ("scaled_fp8",)
STATE = ".quant_state.bitsandbytes__"
FORMATS = ("float8_e4m3fn", "float8_e5m2")
"""Of ComfyUI's notes: those whose scale is one number, or one a row."""
WHOLE = {"I8": "int8", "U8": "uint8", "I16": "int16", "I32": "int32", "I64": "int64"}
"""Weights are none of these, unless a scale or a table goes with them."""
FLOAT8 = {"F8_E4M3": "fp8 e4m3", "F8_E5M2": "fp8 e5m2"}


class Stored(NamedTuple):
    """One tensor as the header has it."""

    dtype: str
    shape: tuple[int, ...]


PICKLED = (".ckpt", ".bin", ".pt", ".pth", ".pkl", ".pickle")
HEADER = "np"
"""The framework to read headers with: for torch the whole file is mapped, which may be more than memory."""


def refuse_pickle(name: str, what: str) -> None:
    """Raise BadValue for a file given as ``what`` that is pickled: loading one runs its code."""
    file = Path(name)
    if file.suffix.lower() in PICKLED and not file.is_dir():
        raise BadValue(
            f"{what} {name} is a pickled file ({file.suffix}), which is never opened; "
            f"take the same {what} as .safetensors, or in a folder in diffusers layout"
        )


def header(file: Path) -> dict[str, Stored]:
    """Every tensor of a .safetensors or .gguf file. Raises BadValue for one that is damaged or none."""
    if file.suffix == ".gguf":
        return _gguf_header(file)
    try:
        with safe_open(file, framework=HEADER) as opened:
            parts = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118
            return {key: Stored(part.get_dtype(), tuple(part.get_shape())) for key, part in parts.items()}
    except (SafetensorError, OSError) as error:
        raise BadValue(f"model {file} is not a readable .safetensors file: {first_line(error)}") from error


def _gguf_header(file: Path) -> dict[str, Stored]:
    if find_spec("gguf") is None:
        raise BadConfig(f"model {file} needs the package gguf: pip install gguf")
    from gguf import GGUFReader

    try:
        found = GGUFReader(file).tensors
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise BadValue(f"model {file} is not a readable .gguf file: {first_line(error)}") from error
    return {x.name: Stored(f"GGUF {x.tensor_type.name}", tuple(map(int, reversed(x.shape)))) for x in found}


def beside(file: Path, key: str) -> dict[str, Any] | None:
    """The config.json in the file's own folder, if it is one of a network: it holds ``key``.

    Raises BadValue if it is not JSON.
    """
    config = file.with_name("config.json")
    if not config.is_file():
        return None
    try:
        loaded = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadValue(f"{config}, beside model {file.name}, is not readable JSON: {error}") from error
    if not isinstance(loaded, dict):
        return None
    refuse_own_code(config, loaded)
    return loaded if key in loaded else None


def refuse_own_code(config: Path, loaded: Mapping[str, Any]) -> None:
    """Raise BadValue for a configuration that names code beside it."""
    if "auto_map" in loaded:
        raise BadValue(f"{config} names code to run (auto_map), which is never run; remove that key")


def is_beside(name: str) -> bool:
    """Whether a quantisation keeps it beside the weights."""
    return name in MARKERS or STATE in name or name.endswith((*BESIDE, *NESTED))


def form(tensors: Mapping[str, Stored]) -> str:
    """``bfloat16``, ``fp8 e4m3, scaled`` or ``nf4``: how most of a file's numbers are stored."""
    state = next((name for name in tensors if STATE in name), None)
    if state is not None:
        return state.rpartition("__")[2]
    counts: dict[str, int] = {}
    for name, (dtype, shape) in tensors.items():
        if not is_beside(name):
            counts[dtype] = counts.get(dtype, 0) + torch.Size(shape).numel()
    most = max(counts, key=lambda dtype: counts[dtype], default="nothing")
    scaled = any(name.endswith(SCALES) for name in tensors)
    if most in FLOAT8:
        return f"{FLOAT8[most]}, {'scaled' if scaled else 'unscaled'}"
    return {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}.get(most, most)


def shapes(file: Path, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """The network's tensors under ``prefix``, which is taken off, with the shapes they have as numbers."""
    own = {name.removeprefix(prefix): x for name, x in header(file).items() if name.startswith(prefix)}
    found = {name: x.shape for name, x in own.items() if not is_beside(name)}
    states = [name for name in own if STATE in name]
    if states:
        with safe_open(file, framework=HEADER) as opened:
            for name in states:
                note = torch.from_numpy(opened.get_tensor(prefix + name))
                found[name.partition(STATE)[0]] = tuple(_state(note)["shape"])
    return found


def refuse_unread(file: Path, prefix: str = "") -> None:
    """Raise BadValue for a weight under ``prefix`` in a form that is not read, told by header and notes."""
    if file.suffix == ".gguf":
        return
    tensors, forms = header(file), _noted(file)
    for name, x in tensors.items():
        if not name.startswith(prefix) or not name.endswith(WEIGHT):
            continue
        layer = name.removesuffix(WEIGHT)
        known = any(each in tensors for each in (*_states(name), *(layer + end for end in SCALES)))
        why = f"{WHOLE[x.dtype]}, whose scale is not known" if x.dtype in WHOLE and not known else ""
        if forms.get(layer, FORMATS[0]) not in FORMATS:
            why = f"{forms[layer]}, which is not read"
        if why:
            raise BadValue(f"{file}: tensor {name} is stored as {why}; take a bf16, fp8 or GGUF file")


def _states(name: str) -> list[str]:
    """What bitsandbytes may keep beside a tensor of four bits."""
    return [f"{name}{STATE}{kind}" for kind in ("nf4", "fp4")]


def _noted(file: Path) -> dict[str, str]:
    """By layer, the form that ComfyUI notes: in the header's own words, or in a tensor beside the weight."""
    with safe_open(file, framework=HEADER) as opened:
        names = [name for name in opened.keys() if name.endswith(NOTE)]  # noqa: SIM118
        try:
            notes = dict(json.loads((opened.metadata() or {}).get(NOTES, "{}")).get("layers", {}))
            for name in names:
                notes[name.removesuffix(NOTE)] = _state(torch.from_numpy(opened.get_tensor(name)))
            return {layer: str(note.get("format")) for layer, note in notes.items()}
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise BadValue(
                f"{file}: its metadata on stored formats is not readable: {first_line(error)}"
            ) from error


@contextmanager
def mapped(file: Path) -> Iterator[Any]:
    """The file open for its tensors. Raises BadValue where this machine cannot map it."""
    try:
        opened = safe_open(file, framework="pt")
    except RuntimeError as error:
        raise BadValue(
            f"{file} ({file_size(file.stat().st_size)}) cannot be mapped into this machine's memory: "
            f"{first_line(error)}; take a machine with more, or the same model in fewer bits"
        ) from error
    with opened as tensors:
        yield tensors


TABLE_PIECE = 1 << 20
"""Numbers that are looked up together: their places, of four bytes each, stay in a processor's cache."""


def numbers(file: Path, prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The network's tensors under ``prefix`` in ``dtype``, one by one, so that memory holds them once.

    Raises BadValue for a form that is not read.
    """
    refuse_unread(file, prefix)
    made: dict[str, Tensor] = {}
    with mapped(file) as opened:
        names = [name for name in opened.keys() if name.startswith(prefix)]  # noqa: SIM118
        there = set(names)
        for name in names:
            own = name.removeprefix(prefix)
            if not is_beside(own):
                made[own] = _number(opened, name, there, dtype)
    return made


def _number(opened: Any, name: str, there: set[str], dtype: torch.dtype) -> Tensor:
    x: Tensor = opened.get_tensor(name)
    state = next((each for each in _states(name) if each in there), None)
    if state is not None:
        return _four_bits(opened, name, _state(opened.get_tensor(state))).to(dtype)
    layer = name.removesuffix(".weight")
    scale = next((layer + end for end in SCALES if layer + end in there), None)
    factor = None if scale is None or layer == name else opened.get_tensor(scale).float()
    if x.is_floating_point() and x.element_size() == 1:
        return _eight_bits(x, factor, dtype)
    if factor is None:
        return x if not x.is_floating_point() else x.to(dtype)
    return (x.float() * _by_row(factor, x)).to(dtype)


def _by_row(factor: Tensor, x: Tensor) -> Tensor:
    """One factor, or one a row, as ``x`` is multiplied with it."""
    return factor.reshape(-1, *[1] * (x.ndim - 1)) if factor.numel() > 1 else factor.reshape(())


def _eight_bits(x: Tensor, factor: Tensor | None, dtype: torch.dtype) -> Tensor:
    """From a table of the 256 numbers there are, which is five times as fast as torch's own cast on a CPU."""
    table = torch.arange(256, dtype=torch.uint8).view(x.dtype).float()
    rows = factor is not None and factor.numel() > 1
    table = table if rows else (table if factor is None else table * factor.reshape(())).to(dtype)
    codes = x.contiguous().view(torch.uint8).flatten()
    values = torch.empty(codes.shape, dtype=table.dtype)
    for source, made in zip(codes.split(TABLE_PIECE), values.split(TABLE_PIECE), strict=True):
        torch.index_select(table, 0, source.int(), out=made)
    values = values.view(x.shape)
    return (values * _by_row(factor, x)).to(dtype) if rows and factor is not None else values


def _state(note: Tensor) -> dict[str, Any]:
    """A note in JSON that is kept as bytes."""
    loaded: dict[str, Any] = json.loads(bytes(note.to(torch.uint8).tolist()))
    return loaded


def _four_bits(opened: Any, name: str, state: Mapping[str, Any]) -> Tensor:
    """Two codes a byte, the first in the high bits; a table of 16 values times the block's maximum."""
    packed: Tensor = opened.get_tensor(name).flatten()
    table: Tensor = opened.get_tensor(f"{name}.quant_map").float()
    largest: Tensor = opened.get_tensor(f"{name}.absmax")
    if "nested_blocksize" in state:
        coarse = opened.get_tensor(f"{name}.nested_absmax").float()
        fine = opened.get_tensor(f"{name}.nested_quant_map").float()[largest.long()]
        largest = fine * _spread(coarse, int(state["nested_blocksize"]), fine.numel())
        largest = largest + float(state["nested_offset"])
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()
    shape = torch.Size(state["shape"])
    values: Tensor = table[codes[: shape.numel()]]
    return (values * _spread(largest.float(), int(state["blocksize"]), values.numel())).reshape(shape)


def _spread(each: Tensor, block: int, count: int) -> Tensor:
    return each.repeat_interleave(block)[:count]
