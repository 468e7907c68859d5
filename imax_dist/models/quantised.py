"""A transformer's weights as they are, or quantised as diffusers does it, where the library is installed.

Three ways: a folder whose ``config.json`` says how it was quantised; ``quantize`` in the model's settings,
which quantises while loading; ``quantize: FILE.gguf``, which takes the transformer's weights from that file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from imax_dist.errors import BadConfig, BadManifest, MissingInput
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.weights import component_config, content_or_name, is_gguf, load_complete
from imax_dist.wording import first_line


class Quantiser(NamedTuple):
    """``package`` must be installed; ``config`` makes diffusers' configuration for a compute dtype."""

    package: str
    config: Callable[[torch.dtype], Any]
    needs_gpu: bool = False
    """diffusers refuses to quantise by bitsandbytes without one."""


def _bitsandbytes_int8(dtype: torch.dtype) -> Any:
    from diffusers import BitsAndBytesConfig

    del dtype
    return BitsAndBytesConfig(load_in_8bit=True)


def _bitsandbytes_nf4(dtype: torch.dtype) -> Any:
    from diffusers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _torchao_int8(dtype: torch.dtype) -> Any:
    from diffusers import TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    del dtype
    return TorchAoConfig(Int8WeightOnlyConfig())


QUANTISERS: dict[str, Quantiser] = {
    "torchao-int8": Quantiser("torchao", _torchao_int8),
    "bitsandbytes-int8": Quantiser("bitsandbytes", _bitsandbytes_int8, needs_gpu=True),
    "bitsandbytes-nf4": Quantiser("bitsandbytes", _bitsandbytes_nf4, needs_gpu=True),
}
PACKAGES = {"bitsandbytes": "bitsandbytes", "torchao": "torchao", "quanto": "optimum-quanto", "gguf": "gguf"}
"""The package behind each ``quant_method`` of a config.json."""
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, OSError, RuntimeError)
"""What the readers of gguf and diffusers raise for a file that is not one, or not this network's."""


def load_transformer(network: Any, spec: ModelSpec, folder: Path, *, dtype: torch.dtype) -> Any:
    """``network`` with the folder's weights. Raises BadConfig where a quantisation is not available here."""
    chosen, own = spec.settings.quantize, folder / "transformer"
    if chosen is None:
        method = quantisation_of(spec.settings, folder)
        if method is not None:
            _require(PACKAGES.get(method, method), f"the transformer of {spec.name} is quantised by {method}")
        return load_complete(network, own, torch_dtype=dtype)
    if is_gguf(chosen):
        return _from_gguf(network, spec, own, dtype=dtype)
    quantiser = QUANTISERS[chosen]
    _require(quantiser.package, f"quantize {chosen}")
    if quantiser.needs_gpu and not torch.accelerator.is_available():
        raise BadConfig(f"quantize {chosen} needs a GPU; on a CPU use torchao-int8 or a .gguf file")
    return load_complete(network, own, torch_dtype=dtype, quantization_config=quantiser.config(dtype))


def quantisation_of(settings: ModelSettings, folder: Path) -> str | None:
    """How the transformer's weights are quantised: as the settings ask, or as its folder says; None: not."""
    if settings.quantize is not None:
        return settings.quantize
    config = component_config(folder, "transformer", weights=False).get("quantization_config") or {}
    method: str | None = config.get("quant_method")
    return method


def check_quantisation(spec: ModelSpec) -> None:
    """Raise BadConfig for a name that is none, MissingInput for a file that is not there."""
    chosen = spec.settings.quantize
    if chosen is None or chosen in QUANTISERS:
        return
    if not is_gguf(chosen):
        known = ", ".join(QUANTISERS)
        raise BadConfig(f"model {spec.name}: quantize {chosen!r} is not known; known: {known}, or FILE.gguf")
    if not Path(chosen).is_file():
        raise MissingInput(f"model {spec.name}: quantize {chosen}: the file does not exist")


def quantisation_id(chosen: str) -> str:
    """What the weights' hash counts: the name, and for a file what it counts of any file of weights."""
    if not is_gguf(chosen):
        return chosen
    content = hashlib.sha256(content_or_name(Path(chosen))).hexdigest()
    return f"{Path(chosen).name} {Path(chosen).stat().st_size} {content}"


def _from_gguf(network: Any, spec: ModelSpec, folder: Path, *, dtype: torch.dtype) -> Any:
    from diffusers import GGUFQuantizationConfig

    _require("gguf", f"quantize {spec.settings.quantize}")
    config = GGUFQuantizationConfig(compute_dtype=dtype)
    try:
        return network.from_single_file(
            spec.settings.quantize, config=str(folder), quantization_config=config, torch_dtype=dtype
        )
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        raise BadManifest(
            f"model {spec.name}: {spec.settings.quantize} is not a readable GGUF file of its transformer: "
            f"{first_line(error)}"
        ) from error


def _require(package: str, what: str) -> None:
    if find_spec(package.replace("-", ".").split(".")[0]) is None:
        raise BadConfig(f"{what}, which needs the package {package}: pip install {package}")
