"""What a model in one file is, told by its tensors: ComfyUI's and the authors' own way to keep one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imax_dist.config import load_named, named_configs
from imax_dist.errors import BadValue, MissingInput
from imax_dist.models.conversion import Fit, fit
from imax_dist.models.registry import ARCHITECTURES
from imax_dist.models.stored import beside, form, header, shapes
from imax_dist.wording import plural

PICKLED = (".ckpt", ".bin", ".pt", ".pth")
SINGLE = (".safetensors", ".gguf", ".sft")
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")
"""Before the names of a transformer's tensors."""
VAE_PREFIXES = ("vae.", "first_stage_model.")
OTHERWISE = "v1"
"""What diffusers calls a file whose names it does not know."""


@dataclass(frozen=True)
class SingleFile:
    """A file with a transformer that we know."""

    file: Path
    table: Mapping[str, Any]
    """Of configs/architectures."""
    prefix: str
    config: Mapping[str, Any]
    """transformer/config.json: beside the file, else the table's."""
    tensors: int
    form: str
    """How its numbers are stored."""

    @property
    def vae_prefix(self) -> str | None:
        """Before the names of an autoencoder that is in the same file."""
        names = header(self.file)
        return next((each for each in VAE_PREFIXES if any(name.startswith(each) for name in names)), None)

    def summary(self) -> str:
        """``the transformer of FLUX.1-dev, 780 tensors, bfloat16``."""
        name = str(self.table["source"]).rpartition("/")[2]
        return f"the transformer of {name}, {plural(self.tensors, 'tensor')}, {self.form}"


def is_single_file(name: str) -> bool:
    """Whether a model's name is that of a file. Raises BadValue for a pickled one, which is never opened."""
    file = Path(name)
    if file.suffix in PICKLED and (file.is_file() or name.count("/") != 1):
        raise BadValue(
            f"model {name} is a pickled file ({file.suffix}), which is never opened; "
            "take the same model as .safetensors, or its folder in diffusers layout"
        )
    return file.suffix in SINGLE


def recognise(file: Path) -> SingleFile:
    """What the file is. Raises MissingInput without one, BadValue if it is torn, unknown or misfits."""
    if not file.is_file():
        raise MissingInput(f"model file {file} does not exist")
    tensors = header(file)
    prefix = next(each for each in PREFIXES if any(name.startswith(each) for name in tensors) or not each)
    candidates = _candidates({name.removeprefix(prefix) for name in tensors if name.startswith(prefix)})
    if not candidates:
        raise BadValue(
            f"model {file} is a single file ({_otherwise(file)}), which is none of the networks supported: "
            f"{', '.join(table['source'] for table in tables())}"
        )
    tried = [_tried(file, table, prefix=prefix) for table in candidates]
    best, how = min(tried, key=lambda pair: (pair[1].faults, -_named(file, pair[0].table)))
    if how.faults:
        raise BadValue(
            f"model {file} looks like {best.table['source']}, but does not fit it: {how.sentence()}"
        )
    return best


def _tried(file: Path, table: Mapping[str, Any], *, prefix: str) -> tuple[SingleFile, Fit]:
    """The file as one of this architecture, and how it fits."""
    import diffusers

    pipeline, own, found = ARCHITECTURES[table["pipeline"]], beside(file, "_class_name"), shapes(file, prefix)
    kind = pipeline.networks[0]
    fits_own = own is not None and own["_class_name"] == kind and pipeline.settings(own) == table["settings"]
    config = own if fits_own and own is not None else table["components"]["transformer"]
    single = SingleFile(file, table, prefix, config, len(found), form(header(file)))
    return single, fit(found, getattr(diffusers, kind), config)


def tables() -> list[dict[str, Any]]:
    """Every architecture that a single file can be of."""
    return [architecture_table(name) for name in named_configs("architectures")]


def architecture_table(name: str) -> dict[str, Any]:
    """One of them; laid over another that it is ``like``."""
    own = load_named("architectures", name)
    if "like" not in own:
        return own
    below, changed = architecture_table(str(own.pop("like"))), own.pop("components", {})
    components = {part: {**config, **changed.get(part, {})} for part, config in below["components"].items()}
    return {**below, **own, "components": components, "files": {**below["files"], **own["files"]}}


def _named(file: Path, table: Mapping[str, Any]) -> int:
    """How much of the file's name is the mark of an architecture that no tensor tells from another."""
    marks = [mark for mark in table.get("named", ()) if mark in file.name.lower()]
    return max(map(len, marks), default=-1 if "named" in table else 0)


def _candidates(names: set[str]) -> list[dict[str, Any]]:
    """The architectures of which a tensor is there that no other network has."""
    found = [table for table in tables() if any(mark in names for mark in table["marks"])]
    strict = [table for table in found if table["pipeline"] == "ZImagePipeline"]
    return strict or found


def _otherwise(file: Path) -> str:
    """``780 tensors, xl_base by their names``."""
    import torch
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    found = header(file)
    tensors = {name: torch.empty(x.shape, device="meta") for name, x in found.items()}
    kind = infer_diffusers_model_type(tensors)
    known = f"{kind} by their names" if kind != OTHERWISE else "of no network that diffusers knows"
    return f"{plural(len(found), 'tensor')}, {known}"
