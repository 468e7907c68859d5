"""Folders as `imax batch` leaves them, for the page and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pictures import png_poster

from imax_dist.output.atomic import write_json
from imax_dist.output.image.provenance import read_recipe

STARTED = {"v": 1, "event": "job.started", "gang": "gang-0", "attempt": 1}


def events(path: Path, *lines: dict[str, Any]) -> None:
    """A JSON Lines file; ``s`` of a line is its second within one minute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for line in lines:
            moment = f"2026-11-23T04:{int(line['s']) // 60:02d}:{line['s'] % 60:06.3f}Z"
            file.write(json.dumps({"ts": moment, **line}) + "\n")


def step(second: float, seconds: float, stage: str = "extrapolated") -> dict[str, Any]:
    place = {"stage": stage, "index": 1, "steps": 2, "sigma": 0.5}
    return {"s": second, "event": "step", **place, "seconds": seconds}


def job(out: Path, name: str, **request: Any) -> Path:
    """The folder of a job that has not begun."""
    folder = out / name
    full = {
        "prompt": "a red sun",
        "seed": 0,
        "size": "300x200",
        "preset": "imax",
        "model": "embedded",
        **request,
    }
    write_json(folder / "request.json", {"id": name, "request": full})
    return folder


def done_job(out: Path, name: str, *, height: int = 200, width: int = 300, **request: Any) -> Path:
    """The folder of a finished job: two steps of one and three seconds, ten seconds in all."""
    folder = job(out, name, size=f"{width}x{height}", **request)
    full = json.loads((folder / "request.json").read_text())["request"]
    poster = png_poster(folder / "poster.png", height, width, **full)
    write_json(folder / "poster.recipe.json", read_recipe(poster))
    events(
        folder / "events.jsonl",
        {"s": 0, **STARTED},
        step(2, 1.0),
        step(5, 3.0),
        {"s": 6, "event": "stage.done", "stage": "extrapolated", "seconds": 4.0},
        {"s": 10, "event": "job.done", "gang": "gang-0", "attempts": 1},
    )
    write_json(folder / "DONE", {"file": "poster.png", "seconds": 9.5})
    return folder


def failed_job(out: Path, name: str, message: str) -> Path:
    """The folder of a job that was tried twice, thirty and sixty seconds long, and given up."""
    folder = job(out, name)
    events(
        folder / "events.jsonl",
        {"s": 0, **STARTED},
        {"s": 30, "event": "job.queued", "gang": "gang-0", "after": "rank 1 was killed"},
        {"s": 40, **STARTED},
        {"s": 100, "event": "job.failed", "message": message},
    )
    return folder


def gang(out: Path, ranks: int) -> None:
    """The batch's own events: one gang of ``ranks``, two minutes."""
    events(
        out / "events.jsonl",
        {"s": 0, "event": "batch.started", "posters": 3, "waiting": 3},
        {"s": 1, "event": "gang.ready", "gang": "gang-0", "ranks": ranks},
        {"s": 120, "event": "batch.done"},
    )


def native(folder: Path) -> None:
    """A native picture in a job's folder."""
    png_poster(folder / "native.png", 48, 64)
