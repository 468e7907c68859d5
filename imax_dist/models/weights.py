"""The files of a model folder in diffusers layout: configs, weights loaded complete, their hash."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from psutil import virtual_memory
from safetensors import SafetensorError, safe_open

from imax_dist.errors import BadConfig, BadValue, MissingInput
from imax_dist.models.files.conversion import converted, without_memory
from imax_dist.models.files.encoder_files import network_names, unread
from imax_dist.models.files.encoder_fit import ENCODERS, encoder_report
from imax_dist.models.files.stored import HEADER, numbers, refuse_own_code, refuse_unread, shapes

MODULAR_INDEX = "modular_model_index.json"
INDEXES = ("model_index.json", MODULAR_INDEX)
LIBRARIES = ("diffusers", "transformers", "imax")
"""Of the parts of an index; the last is ours, of folders that ``assembled`` makes."""


def pipeline_class(folder: Path) -> str:
    """``_class_name`` of model_index.json. Raises MissingInput if the folder is not a pipeline."""
    return str(pipeline_index(folder).get("_class_name"))


def pipeline_index(folder: Path) -> dict[str, Any]:
    """model_index.json, or that of a modular pipeline.

    Raises MissingInput if the folder is not a pipeline, BadValue if a part is of a library we do not know.
    """
    index = folder / "model_index.json"
    if (folder / MODULAR_INDEX).is_file():
        index = folder / MODULAR_INDEX
    if not index.is_file():
        raise MissingInput(f"model folder {folder} has no model_index.json; it is not in diffusers layout")
    loaded = _read_json(index)
    for part, entry in loaded.items():
        library = entry[0] if isinstance(entry, list) and entry and not part.startswith("_") else None
        if isinstance(library, str) and library not in LIBRARIES:
            raise BadValue(
                f"{index} takes {part} from {library!r}, whose code is never run; it may name "
                f"{' and '.join(LIBRARIES[:2])}"
            )
    return loaded


def component_config(folder: Path, component: str, *, weights: bool = True) -> dict[str, Any]:
    """config.json of one component. Raises MissingInput naming what is not there, ``weights`` included."""
    config = folder / component / "config.json"
    if not config.is_file():
        raise MissingInput(f"model folder {folder} is incomplete: {component}/config.json is missing")
    if weights and not list((folder / component).glob("*.safetensors")):
        raise MissingInput(
            f"model folder {folder} is incomplete: {component} has no .safetensors weights "
            "(other formats are not loaded)"
        )
    return _read_json(config)


def guider_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """guider_config.json of each component that is one."""
    return {path.parent.name: _read_json(path) for path in sorted(folder.glob("*/guider_config.json"))}


def require_text(folder: Path, *, encoders: Iterable[str], tokenizers: Iterable[str]) -> None:
    """Raise MissingInput unless the text encoders and tokenizers of a pipeline are there.

    Raises BadValue where a tokenizer asks for code of its own.
    """
    for component in encoders:
        component_config(folder, component)
    for component in tokenizers:
        config = f"{component}/tokenizer_config.json"
        if not (folder / config).is_file():
            raise MissingInput(f"model folder {folder} is incomplete: {config} is missing")
        for each in sorted((folder / component).glob("*config.json")):
            _read_json(each)


PIECE = 4 << 20
"""Bytes of a request to read ahead: the kernel cuts longer ones short."""
SINGLE_MARK = "single_file.json"
"""In the folder of a component whose weights are a link to a file with names of its own (``assembled``)."""


def load_complete(network: Any, folder: Path, **options: Any) -> Any:
    """``network.from_pretrained(folder)``, but MissingInput where the libraries fill a gap with noise.

    Only safetensors are opened: without ``use_safetensors`` the libraries fall back to pickled files.
    """
    read_ahead(folder)
    if (folder / SINGLE_MARK).is_file():
        return _load_single(network, folder, **options)
    refuse_whole_numbers(folder)
    if not hasattr(network, "load_config"):
        return _whole(network.from_pretrained(folder, use_safetensors=True, **ENCODERS, **options), folder)
    try:
        return _whole(
            network.from_pretrained(folder, output_loading_info=True, use_safetensors=True, **options), folder
        )
    except (ValueError, OSError, RuntimeError):
        refuse_misfit(network, folder)
        raise


def _whole(loaded: tuple[Any, dict[str, Any]], folder: Path, *, unread: Iterable[str] = ()) -> Any:
    """The network if the libraries' report has no gap in it. Raises BadValue or MissingInput."""
    module, report = loaded
    for name, found, wanted in sorted(report.get("mismatched_keys", ())):
        raise BadValue(_misfit(folder, name, found, wanted))
    missing = sorted(set(report["missing_keys"]) - set(unread))
    if missing:
        raise MissingInput(
            f"{folder} is incomplete: its weights lack {len(missing)} tensors that its config.json asks for, "
            f"the first is {missing[0]}"
        )
    return module.eval()


def read_ahead(folder: Path) -> None:
    """Ask for the weights' pages in order, before a mapping asks for them one by one.

    Not of files that the machine's free memory would not hold: they would push each other out.
    """
    files = [(path, path.stat().st_size) for path in folder.glob("*.safetensors")]
    if not hasattr(os, "posix_fadvise") or sum(size for _, size in files) > virtual_memory().available:
        return
    for path, size in files:
        with suppress(OSError), path.open("rb") as file:
            for at in range(0, size, PIECE):
                os.posix_fadvise(file.fileno(), at, PIECE, os.POSIX_FADV_WILLNEED)


def refuse_whole_numbers(folder: Path) -> None:
    """Raise BadValue for weights of integers, which the libraries would take for numbers of their own.

    Quantised weights are such, and pass; a damaged file is left to who reads it whole.
    """
    if component_config(folder, ".").get("quantization_config"):
        return
    for file in sorted(folder.glob("*.safetensors")):
        with suppress(SafetensorError, OSError), safe_open(file, framework=HEADER):
            refuse_unread(file)


def refuse_misfit(network: Any, folder: Path) -> None:
    """Compare the headers of a folder's weights with its config.json, for one of diffusers' networks.

    Raises MissingInput for a damaged file, BadValue for a tensor of another shape. Quantised weights have
    other shapes and pass.
    """
    found, config = _stored_shapes(folder), component_config(folder, ".")
    if config.get("quantization_config"):
        return
    for name, x in without_memory(network, config).state_dict().items():
        if found.get(name, x.shape) != tuple(x.shape):
            raise BadValue(_misfit(folder, name, found[name], x.shape))
    refuse_whole_numbers(folder)


def refuse_encoder_misfit(folder: Path) -> None:
    """The same for one of transformers' networks; MissingInput also for a tensor that is not there."""
    found, config = _stored_shapes(folder), component_config(folder, ".")
    if not config.get("quantization_config"):
        _whole(encoder_report(config, found), folder)
        refuse_whole_numbers(folder)


def _stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Of all tensors in a folder. Raises MissingInput for a torn file."""
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            found |= shapes(file)
        except BadValue as error:
            raise MissingInput(f"{folder} is incomplete: {error}") from error
    return found


def _misfit(folder: Path, name: str, found: Iterable[int], wanted: Iterable[int]) -> str:
    return (
        f"{folder} does not fit its config.json: tensor {name} is {tuple(found)} in the file and "
        f"{tuple(wanted)} in the network; take weights and config.json from the same model"
    )


def _load_single(network: Any, folder: Path, **options: Any) -> Any:
    """The same from a file in its authors' names, and from 8 and 4 bits made numbers."""
    dtype = options.pop("torch_dtype", None) or options.pop("dtype")
    if options:
        raise BadConfig(
            "quantize: a model in one file is not quantised as it loads; take an fp8 or GGUF file"
        )
    config = component_config(folder, ".")
    (file,) = folder.glob("*.safetensors")
    tensors = numbers(file, str(_read_json(folder / SINGLE_MARK)["prefix"]), dtype)
    if not hasattr(network, "load_config"):
        return _load_encoder(network, folder, tensors, dtype)
    module = without_memory(network, config)
    made = converted(tensors, network, config, set(module.state_dict()))
    for name, x in made.items():
        if not x.is_floating_point() and not name.endswith("num_batches_tracked"):
            kind = str(x.dtype).removeprefix("torch.")
            raise BadValue(
                f"{file.resolve()}: tensor {name} is stored as {kind}, whose scale is not known; "
                "take a bf16, fp8 or GGUF file"
            )
    gaps = module.load_state_dict(made, assign=True, strict=False).missing_keys
    for name in gaps:
        if not name.endswith("num_batches_tracked"):
            raise MissingInput(f"{file.resolve()} lacks {len(gaps)} tensors, the first is {name}")
        module.get_submodule(name.rpartition(".")[0]).num_batches_tracked = torch.zeros((), dtype=torch.long)
    return module.eval()


def _load_encoder(network: Any, folder: Path, tensors: dict[str, Any], dtype: torch.dtype) -> Any:
    """One of transformers' networks; what its file need not have becomes the identity."""
    from transformers import AutoConfig

    own = component_config(folder, ".")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    (file,) = folder.glob("*.safetensors")
    tensors = network_names(tensors, own)
    loaded = network.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype, **ENCODERS)
    module = _whole(loaded, file.resolve(), unread=unread(own))
    for name in loaded[1]["missing_keys"]:
        setattr(module, name.partition(".")[0], torch.nn.Identity())
    return module


def weights_hash(folder: Path) -> str:
    """SHA-256 over the weights as the index names them: path, size and content of small files.

    Files above 64 MiB count by size and the hub's own content name, so that hashing takes no minutes.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        digest.update(content_or_name(path))
    return digest.hexdigest()


def content_or_name(file: Path) -> bytes:
    """What the hash counts of one file, besides its size."""
    small = file.stat().st_size <= 64 << 20
    return file.read_bytes() if small else file.resolve().name.encode()


def is_gguf(quantize: str | None) -> bool:
    """Whether ``quantize`` of a settings file is a file with the transformer's weights."""
    return quantize is not None and quantize.endswith(".gguf")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadConfig(f"{path} is not readable JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise BadConfig(f"{path} is not a configuration: its top level is not an object")
    refuse_own_code(path, loaded)
    return loaded
