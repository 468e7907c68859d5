"""The authors' and ComfyUI's tensor names to those of diffusers, by diffusers' converters and ours.

A conversion is tried on shapes alone, so that a file that does not fit is refused before a weight is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from imax_dist.models.files.converters import OWN
from imax_dist.wording import first_line, plural

Tensors: TypeAlias = dict[str, Tensor]
Converter: TypeAlias = Callable[[Tensors, Mapping[str, Any]], Tensors]
LIFTED = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}
"""FLUX.2's autoencoder has them within its halves."""
STRANGE = 0.1
"""Of a file's names: where fewer are strange to the network, they are diffusers' own and some are missing."""


class Fit(NamedTuple):
    """A file's tensors against those of a network, in diffusers' names; all empty where they are the same."""

    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    """``NAME is (4, 4) in the file and (8, 8) in the network``."""
    refused: str = ""
    """What a converter said that could not read the file at all."""

    @property
    def faults(self) -> float:
        """How far off it is; infinite where nothing was read."""
        if self.refused:
            return float("inf")
        return len(self.missing) + len(self.left_over) + len(self.wrong)

    def sentence(self) -> str:
        """What does not fit, counted, with the first of each."""
        parts = [self.refused] if self.refused else []
        parts += (
            [f"{plural(len(self.wrong), 'tensor')} of another shape: {self.wrong[0]}"] if self.wrong else []
        )
        for names, what in ((self.missing, "missing"), (self.left_over, "that it does not have")):
            if names:
                parts.append(f"{plural(len(names), 'tensor')} {what}, the first is {names[0]}")
        return "; ".join(parts)


def converted(tensors: Tensors, kind: Any, config: Mapping[str, Any], expected: set[str]) -> Tensors:
    """``tensors`` in the names of ``kind``, diffusers' class; emptied of what a converter takes out.

    Raises what a converter raises: KeyError, RuntimeError, IndexError, ValueError.
    """
    if expected <= set(tensors) or set(tensors) <= expected:
        return dict(tensors)
    with _ViewsOfOne():
        return _converter_of(kind)(tensors, config)


class _ViewsOfOne(TorchFunctionMode):
    """Converters take joined matrices apart and copy each part by ``torch.cat`` of it alone: here it stays
    a view, so that a mapped file is loaded by what is touched of it (DECISIONS 109)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.cat and len(args) == 1 and len(args[0]) == 1 and not kwargs:
            return args[0][0]
        return func(*args, **(kwargs or {}))


def fit(shapes: Mapping[str, tuple[int, ...]], kind: Any, config: Mapping[str, Any]) -> Fit:
    """Whether a file with tensors of ``shapes`` is a network of ``kind`` with this config.json."""
    network = without_memory(kind, config)
    expected = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    given = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    before = dict(given)
    try:
        made = converted(given, kind, config, set(expected))
    except (KeyError, RuntimeError, IndexError, ValueError, AttributeError) as error:
        if len(set(before) - set(expected)) > STRANGE * len(before):
            cause = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
            return Fit(refused=f"its tensors are not read by the converter of these names ({cause})")
        given, made = before, before
    used = {id(x if x._base is None else x._base) for x in made.values()}
    rest = [name for name, x in given.items() if id(x) not in used and name in before]
    left = [*rest, *(name for name in made if name not in expected)]
    found = {name: tuple(x.shape) for name, x in made.items()}
    wrong = [
        f"{name} is {found[name]} in the file and {shape} in the network"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
    return Fit(tuple(missing), tuple(dict.fromkeys(left)), tuple(wrong))


def without_memory(kind: Any, config: Mapping[str, Any]) -> Any:
    """The network with its layers and shapes, but no memory behind its weights."""
    from accelerate import init_empty_weights
    from diffusers.models.modeling_utils import no_init_weights

    with init_empty_weights(), no_init_weights():  # to draw numbers for no memory takes half of the time
        return kind.from_config(dict(config))


def _converter_of(kind: Any) -> Converter:
    from diffusers.loaders import single_file_model, single_file_utils

    if kind.__name__ in OWN:
        return OWN[kind.__name__]
    if kind.__name__ == "AutoencoderKLFlux2":
        return _flux2_autoencoder
    if kind.__name__ == "AutoencoderKLQwenImage":
        return lambda tensors, _: single_file_utils.convert_wan_vae_to_diffusers(tensors)
    name = single_file_model._get_single_file_loadable_mapping_class(kind)
    if name is None:
        raise ValueError(f"diffusers has no converter for a {kind.__name__}")
    convert = single_file_model.SINGLE_FILE_LOADABLE_CLASSES[name]["checkpoint_mapping_fn"]
    return lambda tensors, config: convert(checkpoint=tensors, config=dict(config))


def _flux2_autoencoder(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Latent-diffusion names with the batch norm of patches beside them."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    for old, new in LIFTED.items():
        for name in [name for name in tensors if name.startswith(old)]:
            tensors[new + name.removeprefix(old)] = tensors.pop(name)
    norm = {name: x for name, x in tensors.items() if name.startswith("bn.")}
    return {**convert_ldm_vae_checkpoint(tensors, dict(config)), **norm}
