"""A page to look at posters: a contact sheet and a deep-zoom viewer, static files only.

``<out>/index.html`` and ``<out>/_view/`` (assets, thumbnails, pyramids). A job's id begins with a letter or
digit, so ``_view`` is never one. What was made for an unchanged picture is kept. Nothing in the folder is
trusted: names are checked, no link is followed, and only files of this program's own names are removed.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from imax_dist.errors import CannotWrite, ImaxError, NoPermission
from imax_dist.geometry import ImageSize
from imax_dist.output.atomic import write_bytes, write_file, write_json
from imax_dist.output.image.pyramid import write_pyramid
from imax_dist.output.image.reader import as_srgb, open_picture
from imax_dist.output.image.resample import small_copy
from imax_dist.output.image.settings import PLAIN_DPI
from imax_dist.output.own_files import is_file, is_name, remove_files, require_real_folder, write_page_file
from imax_dist.output.web.batch_folder import Poster, foreign_folders, number, read_folder, section
from imax_dist.wording import duration

VIEW = "_view"
ASSETS = ("page.css", "page.js", "viewer.js", "openseadragon.min.js", "openseadragon.LICENSE.txt")
PLAIN_SIDE = 1_600
"""Pictures up to this side are shown as they are; larger ones as tiles."""
THUMB = 480
FORMAT = "imax-view/1"
MARK = b'"_view/page.css"'
"""What every page of this program holds."""
LOOK_FILES = r"thumb\.jpg|look\.json"
TILE_FILES = r"\d{1,4}_\d{1,4}\.jpg"


Looks = Mapping[str, Mapping[str, Any]]
"""By a poster's id, what was drawn of it."""
Scene = tuple[str, str, str]
Scenes = dict[Scene, list[Poster]]
"""Posters of the same prompt, seed and size: several presets of one are layers of each other."""


@dataclass(frozen=True)
class PageResult:
    """The page, how many posters it shows, and a sentence for each picture that could not be read."""

    page: Path
    posters: int
    problems: tuple[str, ...]


def write_page(out: Path, *, on_poster: Callable[[str], None] | None = None) -> PageResult:
    """Write the page of the folder ``out``. Raises MissingInput, CannotWrite or NoPermission.

    ``on_poster`` gets the id of each poster whose tiles are being made.
    """
    posters = read_folder(out)
    view = require_real_folder(out / VIEW)
    for name in ASSETS:
        write_bytes(view / name, _asset(name))
    looks: dict[str, dict[str, Any]] = {}
    unreadable: dict[str, str] = {}
    for poster in posters:
        if poster.picture is None:
            continue
        try:
            looks[poster.id] = look_of(out, poster, on_poster)
        except (CannotWrite, NoPermission):
            raise
        except ImaxError as error:
            unreadable[poster.id] = str(error)
    title = out.resolve().name
    scenes = _scenes(posters, looks)
    entries = [{**_entry(out, p, scenes, looks), "message": unreadable.get(p.id, p.message)} for p in posters]
    text = json.dumps({"title": title, "posters": entries}, allow_nan=False).replace("<", "\\u003c")
    page = _asset("index.html").decode().replace("/*DATA*/", text)
    page = page.replace("<title>Posters</title>", f"<title>{html.escape(title)}</title>")
    write_page_file(out / "index.html", page.encode("utf-8", "replace"), mark=MARK)
    problems = (*foreign_folders(out), *unreadable.values())
    return PageResult(out / "index.html", len(posters), problems)


def _asset(name: str) -> bytes:
    return files("imax_dist.output.web").joinpath("viewer", name).read_bytes()


def look_of(out: Path, poster: Poster, on_poster: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Thumbnail and layer of a picture, made now unless those of the very same file are there."""
    assert poster.picture is not None
    folder = require_real_folder(out / VIEW / _folder_name(poster.id))
    status = poster.picture.stat()
    source = {
        "format": FORMAT,
        "name": poster.picture.name,
        "bytes": status.st_size,
        "time": status.st_mtime_ns,
    }
    kept = folder / "look.json"
    look = _read_look(kept)
    if look.get("source") == source and all(
        isinstance(look.get(key), str) for key in ("url", "thumb", "size")
    ):
        return look
    if on_poster is not None:
        on_poster(poster.id)
    _remove_look(folder)
    look = {"source": source, **_draw(out, poster.picture, folder)}
    write_json(kept, look)
    return look


def _read_look(path: Path) -> dict[str, Any]:
    """What was drawn before; empty if nothing was, or the file is not one of ours."""
    try:
        look = json.loads(path.read_text(encoding="utf-8")) if is_file(path) else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return look if isinstance(look, dict) else {}


def _folder_name(poster_id: str) -> str:
    """A job's id as it is; the name of a loose poster, which may be anything, by its hash."""
    return poster_id if is_name(poster_id) else f"x-{hashlib.sha256(poster_id.encode()).hexdigest()[:16]}"


def _remove_look(folder: Path) -> None:
    """Remove what ``_draw`` made, file by file; what else lies there is kept."""
    tiles = require_real_folder(folder / "tiles")
    for level in sorted(tiles.iterdir()) if tiles.is_dir() else ():
        if level.name.isdecimal() and not level.is_symlink():
            remove_files(level, TILE_FILES)
    remove_files(tiles, r"(?!)")
    remove_files(folder, LOOK_FILES)


def _draw(out: Path, picture: Path, folder: Path) -> dict[str, Any]:
    bands = as_srgb(open_picture(picture))
    size = bands.size
    thumb = folder / "thumb.jpg"
    if max(size.width, size.height) <= PLAIN_SIDE and picture.suffix.lower() in (".png", ".jpg", ".jpeg"):
        small = Image.fromarray(small_copy(bands, THUMB))
        write_file(thumb, lambda temporary: small.save(temporary, format="JPEG", quality=85))
        return {"url": href(out, picture), "thumb": href(out, thumb), "size": str(size)}
    tiles = write_pyramid(folder / "tiles", bands)
    return {
        "url": href(out, folder / "tiles") + "/",
        "tiles": tiles,
        "thumb": href(out, _single_tile(folder / "tiles")),
        "size": str(size),
    }


def _single_tile(tiles: Path) -> Path:
    """The largest level that is one tile."""
    found = (path for path in tiles.iterdir() if path.name.isdecimal())
    levels = sorted(found, key=lambda path: int(path.name), reverse=True)
    return next(level for level in levels if len(list(level.iterdir())) == 1) / "0_0.jpg"


def _entry(out: Path, poster: Poster, scenes: Scenes, looks: Looks) -> dict[str, Any]:
    request = poster.request
    look = looks.get(poster.id)
    return {
        "id": poster.id,
        "state": poster.state,
        "prompt": str(request.get("prompt", "")),
        "size": poster.size or (look["size"] if look else ""),
        "seed": str(request.get("seed", 0)),
        "model": str(request.get("model", "")),
        "preset": str(request.get("preset", "")),
        "paper": _paper(request),
        "time": "" if poster.seconds is None else duration(poster.seconds),
        "finished": poster.finished[:16].replace("T", " "),
        "thumb": look["thumb"] if look else None,
        "layers": _layers(out, poster, scenes, looks),
        "files": [{"name": p.name, "href": href(out, p), "size": _bytes(p)} for p in poster.files],
        "recipe": href(out, poster.recipe_file) if poster.recipe_file else None,
        "command": _command(poster),
    }


def _scenes(posters: Sequence[Poster], looks: Looks) -> Scenes:
    """The posters that can be shown, by what they are of."""
    found: Scenes = {}
    for poster in posters:
        if poster.id in looks:
            found.setdefault(_scene(poster), []).append(poster)
    return found


def _scene(poster: Poster) -> Scene:
    return str(poster.request.get("prompt")), str(poster.request.get("seed", 0)), poster.size


def _layers(out: Path, poster: Poster, scenes: Scenes, looks: Looks) -> list[dict[str, Any]]:
    """The poster, its native picture, and the same prompt, seed and size by other presets."""
    if poster.id not in looks:
        return []
    layers = [_layer(looks[poster.id], _label(poster))]
    if poster.native is not None:
        layers.append(
            {"label": "native (up-sampled)", "url": href(out, poster.native), **native_place(poster)}
        )
    others = {_label(other): other for other in scenes[_scene(poster)]}
    others.pop(_label(poster), None)
    return [*layers, *(_layer(looks[other.id], label) for label, other in others.items())]


def _layer(look: Mapping[str, Any], label: str) -> dict[str, Any]:
    kept = {name: look[name] for name in ("url", "tiles") if name in look}
    return {"label": label, **kept, "x": 0, "y": 0, "width": 1}


def _label(poster: Poster) -> str:
    preset = str(poster.request.get("preset", ""))
    return "direct" if preset == "direct" else f"extrapolated ({preset or 'imax'})"


def native_place(poster: Poster) -> dict[str, float]:
    """Where the native picture lies in units of the poster's width: it covers the uncropped render."""
    plan = section(poster.recipe, "plan")
    try:
        size, render = ImageSize.parse(str(plan["size"])), ImageSize.parse(str(plan["render_size"]))
    except (KeyError, ImaxError):
        return {"x": 0.0, "y": 0.0, "width": 1.0}
    across, down = render.width - size.width, render.height - size.height
    return {
        "x": -(across // 2) / size.width,
        "y": -(down // 2) / size.width,
        "width": render.width / size.width,
    }


def _paper(request: Mapping[str, Any]) -> str:
    if not request.get("paper"):
        return ""
    bleed = f", bleed {request['bleed']}" if request.get("bleed") else ""
    dpi = number(request.get("dpi")) or PLAIN_DPI
    return f"{request['paper']}{bleed}, {dpi:g} dpi"


def _command(poster: Poster) -> str:
    if poster.recipe is None or poster.picture is None:
        return ""
    folder = poster.picture.parent
    recipe = folder / f"{poster.picture.stem}.recipe.json"
    return f"imax generate --recipe {shlex.quote(str(recipe))} --out {shlex.quote(f'{poster.id}.png')}"


def _bytes(path: Path) -> str:
    amount = float(path.stat().st_size)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} GB"


def href(out: Path, path: Path) -> str:
    """``path`` as a link from the page."""
    return quote(os.fsencode(path.relative_to(out).as_posix()))
