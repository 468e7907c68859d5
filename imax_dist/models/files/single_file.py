"""What a model in one file is, told by its tensors: ComfyUI's and the authors' own way to keep one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from imax_dist.config import load_named, named_configs
from imax_dist.errors import BadValue, MissingInput
from imax_dist.models.files.conversion import Fit, fit
from imax_dist.models.files.other_files import what_else
from imax_dist.models.files.stored import beside, form, header, refuse_pickle, refuse_unread, shapes
from imax_dist.models.registry import ARCHITECTURES
from imax_dist.wording import plural

SINGLE = (".safetensors", ".gguf", ".sft")
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")
"""Before the names of a transformer's tensors."""
VAE_PREFIXES = ("vae.", "first_stage_model.")
TELLING = ("in_channels", "guidance_embeds", "zero_cond_t")
"""Keys of a transformer's config.json in which models of one network differ."""


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
    if file.is_file() or name.count("/") != 1:  # else a hub id
        refuse_pickle(name, "model")
    return file.suffix in SINGLE


def recognise(file: Path) -> SingleFile:
    """What the file is. Raises MissingInput without one, BadValue for a damaged, unknown or unfit one."""
    if not file.is_file():
        raise MissingInput(f"model file {file} does not exist")
    tensors = header(file)
    prefix, candidates = _read_as(tensors)
    for name, what in [pair for table in candidates for pair in table.get("refused", {}).items()]:
        if prefix + name in tensors:
            raise BadValue(f"model {file} is {what}")
    if not candidates:
        raise BadValue(f"model {file} {what_else(tensors, [table['source'] for table in tables()])}")
    refuse_unread(file, prefix)
    tried = [_tried(file, table, prefix=prefix, among=candidates) for table in candidates]
    best = min(tried, key=lambda each: each.rank)
    if best.fit.faults:
        source = best.single.table["source"]
        raise BadValue(f"model {file} looks like {source}, but does not fit it: {best.fit.sentence()}")
    return best.single


def is_of_a_network(file: Path) -> bool:
    """Whether it has tensors of a transformer we know, fit or not. Raises BadValue for a damaged file."""
    return bool(_read_as(header(file))[1])


def _read_as(tensors: Mapping[str, Any]) -> tuple[str, list[Mapping[str, Any]]]:
    """The prefix of a transformer's names in a file, and of which architectures it may be."""
    prefix = next(each for each in PREFIXES if any(name.startswith(each) for name in tensors) or not each)
    return prefix, _candidates({name.removeprefix(prefix) for name in tensors if name.startswith(prefix)})


class Tried(NamedTuple):
    """A file as one of an architecture."""

    single: SingleFile
    fit: Fit
    is_own: bool
    """Whether its config is the one beside the file."""

    @property
    def rank(self) -> tuple[float, bool, int]:
        """The least is what it is: tensors first, then the config beside it, then its name."""
        return self.fit.faults, not self.is_own, -_named(self.single.file, self.single.table)


def _tried(file: Path, table: Mapping[str, Any], *, prefix: str, among: list[Mapping[str, Any]]) -> Tried:
    pipeline, own, found = ARCHITECTURES[table["pipeline"]], beside(file, "_class_name"), shapes(file, prefix)
    config = table["components"]["transformer"]
    is_own = (
        own is not None
        and own["_class_name"] == pipeline.networks[0]
        and pipeline.settings(own) == table["settings"]
        and all(_value(own, key, table) == _value(config, key, table) for key in _telling(table, among))
    )
    config = own if is_own and own is not None else config
    single = SingleFile(file, table, prefix, config, len(found), form(header(file)))
    return Tried(single, fit(found, _network(table), config), is_own)


def _network(table: Mapping[str, Any]) -> Any:
    import diffusers

    return getattr(diffusers, ARCHITECTURES[table["pipeline"]].networks[0])


def _telling(table: Mapping[str, Any], among: list[Mapping[str, Any]]) -> list[str]:
    """Keys by which a config beside a file tells which model of the table's network it is of."""
    alike = [each for each in among if _network(each) is _network(table)]
    values = {
        key: {_value(each["components"]["transformer"], key, each) for each in alike} for key in TELLING
    }
    return [key for key, each in values.items() if len(each) > 1]


def _value(config: Mapping[str, Any], key: str, table: Mapping[str, Any]) -> Any:
    """Of a key that a config may leave to the class's default."""
    default = inspect.signature(_network(table).__init__).parameters.get(key)
    return config.get(key, None if default is None else default.default)


def tables() -> list[Mapping[str, Any]]:
    """Every architecture that a single file can be of."""
    return [architecture_table(name) for name in named_configs("architectures")]


@functools.cache
def architecture_table(name: str) -> Mapping[str, Any]:
    """One of them, with its text encoders of ``configs/encoders`` among components and files."""
    table = _laid_over_another(name)
    encoders = {part: encoder_table(each) for part, each in table.get("encoders", {}).items()}
    components, files = ({part: each[key] for part, each in encoders.items()} for key in ("config", "files"))
    return {
        **table,
        "components": {**table["components"], **components},
        "files": {**table["files"], **files},
    }


def _laid_over_another(name: str) -> dict[str, Any]:
    """The file; laid over another that it is ``like``."""
    own = load_named("architectures", name)
    if "like" not in own:
        return own
    below, changed = _laid_over_another(str(own.pop("like"))), own.pop("components", {})
    components = {part: {**config, **changed.get(part, {})} for part, config in below["components"].items()}
    return {**below, **own, "components": components, "files": {**below["files"], **own["files"]}}


@functools.cache
def encoder_table(name: str) -> Mapping[str, Any]:
    """A text encoder's config.json and the names of its files; laid over another that it is ``like``."""
    own = load_named("encoders", name)
    if "like" not in own:
        return own
    below = encoder_table(str(own["like"]))
    return {**below, **own, "config": {**below["config"], **own["config"]}}


def _named(file: Path, table: Mapping[str, Any]) -> int:
    """How much of the file's name is the mark of an architecture that no tensor tells from another."""
    marks = [mark for mark in table.get("named", ()) if mark in file.name.lower()]
    return max(map(len, marks), default=-1 if "named" in table else 0)


def _candidates(names: set[str]) -> list[Mapping[str, Any]]:
    """The architectures of which a tensor is there that no other network has."""
    found = [table for table in tables() if any(mark in names for mark in table["marks"])]
    strict = [table for table in found if table["pipeline"] == "ZImagePipeline"]
    return strict or found
