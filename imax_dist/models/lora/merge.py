"""LoRA files on a transformer: read, checked, fitted and merged into its weights before the first step.

What does not fit is found on a network without weights, before gigabytes are read; peft does the arithmetic.
Merged weights cost a step nothing and need nothing of the engines.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open

from imax_dist.errors import BadValue, MissingInput
from imax_dist.models.files.conversion import without_memory
from imax_dist.models.files.stored import HEADER, mapped, refuse_pickle
from imax_dist.models.lora.loaders import bare, loader_of
from imax_dist.models.spec import Lora, ModelSpec
from imax_dist.models.weights import component_config
from imax_dist.named_file import plain_size
from imax_dist.wording import first_line

if TYPE_CHECKING:
    from imax_dist.models.lora.layers import LoraLayers

OTHER_KINDS = {
    "dora_scale": "a DoRA (dora_scale)",
    "lora_magnitude_vector": "a DoRA (PEFT's lora_magnitude_vector)",
    "lokr_t": "a LoKr with a core of Tucker's",
    "hada_t": "a LoHa with a core of Tucker's",
    "oft_": "an OFT",
    "lora_B.bias": "a LoRA with biases",
}
"""By a piece of a tensor's name: what is not B A alone, nor a product (``lora_products``)."""
PLAIN_DTYPES = ("F64", "F32", "F16", "BF16")
WHOLE_DTYPES = ("I64", "I32", "I16", "I8", "U8")
"""In which some trainers store an alpha."""
PRODUCTS = {".lokr_": "LoKr", ".hada_": "LoHa"}
"""Of LyCORIS, by a piece of a tensor's name; ``lora_products`` reads them."""


class FittedLora(NamedTuple):
    """A file and what of it is merged."""

    lora: Lora
    layers: LoraLayers

    def summary(self) -> str:
        """``style.safetensors x 0.8: 20 of 20 layers (kohya)``."""
        return f"{self.lora.file.name} x {self.lora.weight:g}: {self.layers.summary()}"


def kind_of(keys: Iterable[str]) -> str | None:
    """LoKr or LoHa if a file has tensors of one."""
    names = list(keys)
    return next((kind for mark, kind in PRODUCTS.items() if any(mark in key for key in names)), None)


def parse_lora(text: str) -> tuple[str, float]:
    """``PATH[:WEIGHT]``. Raises BadValue for an empty path or a weight that is not a number."""
    source, colon, weight = text.rpartition(":")
    if not colon or "/" in weight or "\\" in weight:
        source, weight = text, "1"
    try:
        number = float(weight)
    except ValueError as error:
        shown = f"lora {text[:200]!r} is not PATH[:WEIGHT]"
        raise BadValue(f"{shown}: {weight[:40]!r} is not a number") from error
    if not source.strip() or number != number or abs(number) == float("inf"):
        raise BadValue(f"lora {text[:200]!r} is not PATH[:WEIGHT]; write for example style.safetensors:0.8")
    return source, number


def find_loras(texts: Sequence[str]) -> tuple[Lora, ...]:
    """Every file with its hash. Raises MissingInput for one that is not there, BadValue for no plain LoRA."""
    return tuple(_find(*parse_lora(text)) for text in texts)


def _find(source: str, weight: float) -> Lora:
    refuse_pickle(source, "lora")
    file = Path(source)
    if file.is_dir():
        inside = sorted(file.glob("*.safetensors"))
        if len(inside) != 1:
            raise MissingInput(f"lora {source} holds {len(inside)} .safetensors files; name one of them")
        file = inside[0]
    if plain_size(file, "lora") is None:
        raise MissingInput(f"lora {source} does not exist; give a .safetensors file on this machine")
    try:
        with safe_open(file, framework=HEADER) as opened:
            kinds = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118
            _check_kind(source, {key: str(part.get_dtype()) for key, part in kinds.items()})
            _check_ranks(source, {key: part.get_shape() for key, part in kinds.items()})
    except SafetensorError as error:
        raise BadValue(f"lora {source} is not a .safetensors file: {error}") from error
    with file.open("rb") as content:
        return Lora(source, file, weight, hashlib.file_digest(content, "sha256").hexdigest())


def _check_kind(source: str, dtypes: Mapping[str, str]) -> None:
    """Raise BadValue for what is no LoRA, another kind of adapter, or stored in few bits."""
    for piece, kind in OTHER_KINDS.items():
        if any(piece in key for key in dtypes):
            raise BadValue(
                f"lora {source} is {kind}, which is not merged; plain LoRA, LoKr and LoHa layers are: "
                "export it as a LoRA with the tool that made it"
            )
    if not any("lora" in key for key in dtypes) and kind_of(dtypes) is None:
        raise BadValue(f"lora {source} holds no LoRA: none of its {len(dtypes)} tensors is named after one")
    plain = next((key for key in dtypes if ".lora_" in key or ".lora." in key), None)
    if plain is not None and kind_of(dtypes) is not None:
        raise BadValue(
            f"lora {source} holds {kind_of(dtypes)} layers and plain ones, the first is {plain}; "
            "save them as two files"
        )
    odd = next((key for key, dtype in dtypes.items() if not _is_plain(key, dtype)), None)
    if odd is not None:
        raise BadValue(
            f"lora {source} is stored as {dtypes[odd]} (tensor {odd}), whose scale is not known; "
            "save it as bfloat16 or float16"
        )


def _is_plain(key: str, dtype: str) -> bool:
    return dtype in PLAIN_DTYPES or (key.endswith(".alpha") and dtype in WHOLE_DTYPES)


def _check_ranks(source: str, shapes: Mapping[str, Sequence[int]]) -> None:
    empty = next((key for key, shape in shapes.items() if 0 in shape), None)
    if empty is not None:
        raise BadValue(f"lora {source}: tensor {empty} has rank 0: it holds nothing")


def fit_loras(spec: ModelSpec, folder: Path, *, partial: bool) -> tuple[FittedLora, ...]:
    """Every LoRA of ``spec`` fitted to the folder's transformer, of which only config.json is read.

    Raises BadConfig if peft is missing or the network takes none, BadValue for a file that does not fit
    it, or of which only a part does, unless ``partial``. Its part for text encoders is left out.
    """
    if not spec.loras:
        return ()
    pipeline, network = loader_of(spec, folder), _without_weights(folder)
    return tuple(_fit(lora, spec, network, pipeline, partial=partial) for lora in spec.loras)


def _fit(lora: Lora, spec: ModelSpec, network: Any, pipeline: Any, *, partial: bool) -> FittedLora:
    from imax_dist.models.lora.layers import fit_layers
    from imax_dist.models.lora.products import fit_products

    try:
        tensors = _tensors(lora)
        if kind_of(tensors) is None:
            layers = fit_layers(tensors, network, pipeline, trained_scale=_trained_scale(lora))
        else:
            layers = fit_products(tensors, network)
    except BadValue as error:
        raise BadValue(f"lora {lora.source} does not fit model {spec.name}: {error}") from error
    if layers.total == 0:
        raise BadValue(
            f"lora {lora.source} holds {layers.of_text} layers of text encoders and none of a transformer, "
            "which is all that a LoRA is merged into"
        )
    if layers.taken < layers.total and not (partial and layers.taken):
        advice = "; --lora-partial merges the layers that fit" if layers.taken else ""
        raise BadValue(
            f"lora {lora.source} does not fit model {spec.name}: {layers.summary()} fit; "
            f"{layers.misfit}{advice}"
        )
    return FittedLora(lora, layers)


def merge_loras(transformer: Any, fitted: Sequence[FittedLora], spec: ModelSpec, folder: Path) -> None:
    """Add them to the transformer's weights, products first, then the others, each kind in order.

    Quantised weights cannot be added to: there the LoRA's own layers stay and cost a little at every step.
    Raises BadValue for a product there.
    """
    fitted = _without_products(transformer, fitted)
    if not fitted:
        return
    pipeline = bare(transformer, loader_of(spec, folder))
    names = [f"lora_{index}" for index in range(len(fitted))]
    for name, each in zip(names, fitted, strict=True):
        try:
            pipeline.load_lora_weights(each.layers.tensors, adapter_name=name)
        except (ValueError, KeyError, RuntimeError, AttributeError) as error:
            raise BadValue(
                f"lora {each.lora.source} does not fit model {spec.name}: {first_line(error)}"
            ) from error
        _check_all_loaded(transformer, name, each, spec)
    pipeline.set_adapters(names, [each.lora.weight for each in fitted])
    if getattr(transformer, "hf_quantizer", None) is None:
        pipeline.fuse_lora(adapter_names=names)
        pipeline.unload_lora_weights()


def _without_products(transformer: Any, fitted: Sequence[FittedLora]) -> list[FittedLora]:
    """The plain ones; the others are merged."""
    from imax_dist.models.lora.products import merge_products

    plain = []
    for each in fitted:
        kind = kind_of(each.layers.tensors)
        if kind is None:
            plain.append(each)
        elif getattr(transformer, "hf_quantizer", None) is not None:
            raise BadValue(
                f"lora {each.lora.source} is a {kind}, which cannot be added to quantised weights; "
                "omit quantize, or export it as a LoRA"
            )
        else:
            merge_products(transformer, each.layers, each.lora.weight)
    return plain


def _check_all_loaded(transformer: Any, name: str, fitted: FittedLora, spec: ModelSpec) -> None:
    """Raise BadValue unless every layer that was handed over is in the network now, and no other."""
    ends = (f".lora_A.{name}.weight", f".lora_B.{name}.weight")
    there = sum(key.endswith(ends) for key, _ in transformer.named_parameters())
    if there != len(fitted.layers.tensors):
        raise BadValue(
            f"lora {fitted.lora.source} does not fit model {spec.name}: of its "
            f"{len(fitted.layers.tensors)} matrices diffusers loaded {there}"
        )


def _without_weights(folder: Path) -> Any:
    """The folder's transformer with its layers and shapes, but no memory behind them."""
    import diffusers

    config = component_config(folder, "transformer", weights=False)
    return without_memory(getattr(diffusers, str(config["_class_name"])), config)


def _tensors(lora: Lora) -> dict[str, Any]:
    """Raises BadValue for numbers that no picture can come from."""
    with mapped(lora.file) as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    for key, x in tensors.items():
        if not bool(x.isfinite().all()):
            raise BadValue(f"its tensor {key} holds numbers that are not finite; the training has diverged")
        if key.endswith(".alpha"):
            if x.numel() != 1:
                raise BadValue(f"{key} has shape {tuple(x.shape)}, but a layer has one alpha")
            _check_alpha(key, float(x))
    return tensors


def _check_alpha(key: str, alpha: float) -> None:
    if alpha == 0.0:
        raise BadValue(f"{key} is 0, so that the layer would change nothing; give it an alpha above 0")
    if not math.isfinite(alpha):
        raise BadValue(f"{key} is {alpha}, which no layer can be trained with")


def _adapter_settings(file: Path) -> str:
    """In JSON: PEFT's config beside the file, or what the file's header holds."""
    beside = file.with_name("adapter_config.json")
    if file.name == "adapter_model.safetensors" and beside.is_file():
        return beside.read_text(encoding="utf-8")
    with safe_open(file, framework=HEADER) as opened:
        return str((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))


def _trained_scale(lora: Lora) -> Callable[[str, int], float]:
    """Alpha over rank by layer and rank, as the file's header or PEFT's config beside it says."""
    try:
        found = json.loads(_adapter_settings(lora.file))
        settings = {key.removeprefix("transformer."): value for key, value in found.items()}
        alpha = None if settings.get("lora_alpha") is None else float(settings["lora_alpha"])
        pattern = {key: float(value) for key, value in dict(settings.get("alpha_pattern") or {}).items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise BadValue(f"its adapter settings are not readable: {first_line(error)}") from error
    if settings.get("use_dora"):
        raise BadValue("it is a DoRA by its adapter settings, which is not merged; export it as a LoRA")
    root = 0.5 if settings.get("use_rslora") else 1.0

    def scale(layer: str, rank: int) -> float:
        own = next(
            (value for key, value in pattern.items() if f".{layer}".endswith(f".{key.lstrip('^')}")), alpha
        )
        if own is None:
            return 1.0
        _check_alpha("the alpha in its adapter settings", own)
        return float(own / rank**root)

    return scale
