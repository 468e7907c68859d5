"""A pipeline folder of links, made of files that lie apart: transformer, VAE, text encoders, tokenizers.

All that loads, hashes and plans a folder in diffusers layout then works on it as it is. The folder stands in
the user's cache under the names, sizes and times of all its files, and is made once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from imax_dist.errors import BadValue, MissingInput
from imax_dist.models.files.conversion import fit
from imax_dist.models.files.encoder_files import Found, encoders_in, require_encoders
from imax_dist.models.files.encoder_fit import refuse_other_encoder
from imax_dist.models.files.single_file import SingleFile, is_single_file, recognise
from imax_dist.models.files.stored import beside, refuse_pickle, shapes
from imax_dist.models.model_paths import find_file, find_pipeline
from imax_dist.models.registry import ARCHITECTURES
from imax_dist.models.weights import SINGLE_MARK, pipeline_index

LAYOUT = 2
"""Counted up when what is written here changes."""
WEIGHTS = "diffusion_pytorch_model.safetensors"
WORDS = ("tokenizer", "processor")
"""How the names of components without weights begin."""


class Asked(NamedTuple):
    """What a person named: a file, and what goes with it."""

    file: Path
    vae: str | None = None
    """A file, or a folder with config.json or a pipeline in it."""
    text_encoders: tuple[str, ...] = ()
    """Files, and folders with text_encoder*/ and tokenizer*/ in them."""
    settings: Mapping[str, Any] = {}
    """Laid over those of the architecture."""


class Source(NamedTuple):
    """Where a component comes from: a folder, or a file with the names of its tensors behind ``prefix``."""

    path: Path
    prefix: str = ""
    config: Mapping[str, Any] | None = None


class Inventory(NamedTuple):
    """What a file is, where its other components are, and which are nowhere."""

    single: SingleFile
    sources: dict[str, Source]
    missing: tuple[str, ...]
    said: Mapping[str, Any] = {}
    """What the index of a named pipeline says besides its components."""

    def hints(self) -> list[str]:
        """Where each of the missing is usually found, a sentence each."""
        source, files = self.single.table["source"], self.single.table.get("files", {})
        return [
            f"{part}: {' or '.join(files[part])} (ComfyUI), or {part}/ of {source}"
            if part in files
            else f"{part}: {part}/ of {source} on the hub"
            for part in self.missing
        ]


def named_parts(model: str, *, vae: str | None, text_encoders: Sequence[str]) -> str:
    """``model``, a single file, with parts that a person names: a YAML file in the cache that says so.

    Raises BadValue for a model that is not a single file.
    """
    if vae is None and not text_encoders:
        return model
    if not is_single_file(model):
        raise BadValue(
            f"vae and encoder go with a model in one file, but {model} is not one; give a .safetensors or "
            ".gguf file as model, or name them in its YAML file"
        )
    named = {
        "source": _absolute(model, "model"),
        "text_encoders": [_absolute(each, "text encoder") for each in text_encoders],
    }
    text = yaml.safe_dump(named if vae is None else {**named, "vae": _absolute(vae, "vae")})
    file = _cache() / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.yaml"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as made:
            made.write(text)
        Path(made.name).replace(file)
    return str(file)


def _absolute(path: str, what: str) -> str:
    return str(_named(path, what).absolute())


def take_inventory(asked: Asked) -> Inventory:
    """Find every component. Raises BadValue for what does not fit, MissingInput for a path that is none."""
    single = recognise(asked.file)
    pipeline = ARCHITECTURES[single.table["pipeline"]]
    sources = {"transformer": Source(single.file, single.prefix, single.config)}
    vae = _vae(asked, single)
    if vae is not None:
        sources["vae"] = vae
    wanted = (*pipeline.encoders, *pipeline.tokenizers)
    named = [_named(text, "text encoder") for text in asked.text_encoders]
    found = find_pipeline(single.table["pipeline"], str(single.table["source"]))
    own = _in_file(single.file, encoders_in(single.file, single.table), single)
    of_folder = {} if found is None else _text_in(found, single, wanted)
    for text in [*(_text_in(place, single, wanted) for place in named), own, of_folder]:
        for part, source in text.items():
            sources.setdefault(part, source)
    for part in pipeline.encoders:
        file = None if part in sources else find_file(single.table.get("files", {}).get(part, ()))
        if file is not None:
            sources.update({key: x for key, x in _text_in(file, single, wanted).items() if key == part})
    for place in [*named, *([] if found is None else [found])]:
        for guider in sorted(place.glob("*/guider_config.json")):
            sources.setdefault(guider.parent.name, Source(guider.parent))
    missing = [part for part in ("vae", *wanted) if part not in sources]
    said = {key: value for place in named for key, value in _said(place, single).items()}
    return Inventory(single, sources, tuple(missing), said)


def assembled(asked: Asked) -> Path:
    """The folder. Raises as ``take_inventory``, and MissingInput for what is nowhere, and its place."""
    folder = next(place for place in _places(_key(asked)) if not place.is_dir() or _is_current(place))
    if folder.is_dir():
        return folder
    inventory = take_inventory(asked)
    if inventory.missing:
        raise MissingInput(
            f"model {asked.file} is {inventory.single.summary()}; not found: {'; '.join(inventory.hints())}. "
            "Name them as vae: and text_encoders: in a YAML file given as --model, or put their folders into "
            "IMAX_MODELS"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as temporary:
        made = Path(temporary) / "model"
        made.mkdir()
        _write(made, inventory, asked.settings)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another rank was faster
                raise
    return folder


def _places(key: str) -> Iterator[Path]:
    """Where the folder of ``key`` may be: one of files that changed since is left, and the next one taken."""
    return (_cache() / f"{key}-{number}" for number in itertools.count())


def _vae(asked: Asked, single: SingleFile) -> Source | None:
    """In the same file, as named, or in one of the usual folders."""
    table = single.table["components"]["vae"]
    if asked.vae is not None:
        place = _named(asked.vae, "vae")
        if place.is_dir():
            inside = place / "vae" if (place / "vae/config.json").is_file() else place
            if not (inside / "config.json").is_file():
                raise MissingInput(
                    f"vae {place} has no config.json; give a folder in diffusers layout or a file"
                )
            return Source(inside)
        return _fitting_vae(place, "", table, single)
    if single.vae_prefix is not None:
        return _fitting_vae(single.file, single.vae_prefix, table, single)
    file = find_file(single.table.get("files", {}).get("vae", ()))
    if file is not None:
        return _fitting_vae(file, "", table, single)
    found = find_pipeline(single.table["pipeline"], str(single.table["source"]))
    return Source(found / "vae") if found is not None and _is_whole(found / "vae") else None


def _fitting_vae(file: Path, prefix: str, table: Mapping[str, Any], single: SingleFile) -> Source:
    import diffusers

    kind = ARCHITECTURES[single.table["pipeline"]].networks[1]
    own = beside(file, "_class_name") if not prefix else None
    config = own if own is not None and own["_class_name"] == kind else table
    how = fit(shapes(file, prefix), getattr(diffusers, kind), config)
    if how.faults:
        raise BadValue(f"vae {file} is not the autoencoder of {single.table['source']}: {how.sentence()}")
    return Source(file, prefix, config)


def _named(text: str, what: str) -> Path:
    refuse_pickle(text, what)
    place = Path(text).expanduser()
    if not place.exists():
        raise MissingInput(
            f"{what} {text} does not exist; give a .safetensors file or a folder in diffusers layout"
        )
    return place


def _text_in(place: Path, single: SingleFile, wanted: Iterable[str]) -> dict[str, Source]:
    """Text encoders and tokenizers of a pipeline folder, or the encoders in a file."""
    if place.is_dir():
        there = {part: place / part for part in wanted}
        return {part: Source(folder) for part, folder in there.items() if _is_whole(folder)}
    return _in_file(place, require_encoders(place, single.table), single)


def _in_file(file: Path, encoders: Mapping[str, Found], single: SingleFile) -> dict[str, Source]:
    for part, found in encoders.items():
        refuse_other_encoder(file, found, what=f"{single.table['source']} ({part})")
    return {part: Source(file, *found) for part, found in encoders.items()}


def _said(place: Path, single: SingleFile) -> dict[str, Any]:
    """What the index of a folder of the same pipeline says besides its components."""
    if not place.is_dir() or not (place / "model_index.json").is_file():
        return {}
    index = pipeline_index(place)
    if index.get("_class_name") != single.table["pipeline"]:
        return {}
    return {key: value for key, value in index.items() if not key.startswith("_") and not _is_part(value)}


def _is_part(entry: Any) -> bool:
    """[library, class]."""
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str | None)


def _is_whole(folder: Path) -> bool:
    if folder.name.startswith(WORDS):
        return (folder / "tokenizer_config.json").is_file()
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _write(folder: Path, inventory: Inventory, settings: Mapping[str, Any]) -> None:
    table, laid = inventory.single.table, dict(settings)
    index: dict[str, Any] = {**table.get("index", {}), **inventory.said, "_class_name": table["pipeline"]}
    for part, source in inventory.sources.items():
        (folder / part).mkdir()
        index[part] = ["imax", "Tokenizer" if part.startswith(WORDS) else "Network"]
        if source.path.is_dir():
            for file in source.path.iterdir():
                (folder / part / file.name).symlink_to(file.resolve())
            continue
        (folder / part / "config.json").write_text(json.dumps(source.config, indent=1), encoding="utf-8")
        if source.path.suffix == ".gguf":
            laid["quantize"] = str(source.path.resolve())
            continue
        (folder / part / WEIGHTS).symlink_to(source.path.resolve())
        mark = {"prefix": source.prefix, "file": _facts(source.path)}
        (folder / part / SINGLE_MARK).write_text(json.dumps(mark), encoding="utf-8")
    (folder / "model_index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    (folder / "imax.yaml").write_text(yaml.safe_dump(laid), encoding="utf-8")


def _is_current(folder: Path) -> bool:
    """Whether every link leads somewhere, and to the very files it was made of."""
    if not all(link.exists() for link in folder.glob("*/*")):
        return False
    marks = folder.glob(f"*/{SINGLE_MARK}")
    made_of = {mark.parent: json.loads(mark.read_text(encoding="utf-8"))["file"] for mark in marks}
    return all(facts == _facts(part / WEIGHTS) for part, facts in made_of.items())


def _facts(file: Path) -> list[int]:
    return [file.stat().st_size, file.stat().st_mtime_ns]


def _key(asked: Asked) -> str:
    """Of all that the folder depends on: files by name, size and time, and the folders searched."""
    digest = hashlib.sha256(f"{LAYOUT} {os.environ.get('IMAX_MODELS', '')} {dict(asked.settings)}\n".encode())
    for path in (asked.file, *map(Path, filter(None, (asked.vae, *asked.text_encoders)))):
        place = path.expanduser()
        digest.update(f"{place.absolute()} {_facts(place) if place.exists() else None}\n".encode())
    return digest.hexdigest()[:24]


def _cache() -> Path:
    """``imax/models`` in the user's cache, or in a private folder of the machine's where there is none."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if not os.access(root if root.exists() else root.parent, os.W_OK):
        root = Path(tempfile.gettempdir()) / f"imax-{os.getuid()}"
        root.mkdir(mode=0o700, exist_ok=True)
        if root.stat().st_uid != os.getuid():
            raise BadValue(f"{root} belongs to another user; set XDG_CACHE_HOME to a folder that you own")
    return root / "imax" / "models"
