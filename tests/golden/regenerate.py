"""Write the golden files again: ``PYTHONPATH=.:tests python tests/golden/regenerate.py [CASE ...]``.

Only for numerics changed on purpose; without a CASE all of them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from golden_cases import (
    EMBEDDED,
    PRESETS,
    TINY,
    TRAINED,
    VALUES,
    golden,
    recorded,
    sampled,
    shipped,
    tiny_request,
    trained,
)
from golden_models import make_embedded, make_tiny


def tiny(name: str, folder: Path) -> dict[str, list[float]]:
    """A tiny network, made as it is asked for."""
    return sampled(tiny_request(name), str(make_tiny(name, folder)))


def main(chosen: list[str]) -> None:
    """Render the cases ``chosen``, or all, and say how far each has moved."""
    torch.set_num_threads(1)
    content = golden() if VALUES.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        embedded = str(make_embedded(Path(folder) / "embedded"))
        cases = {name: partial(sampled, request, embedded) for name, request in EMBEDDED.items()}
        for name in TINY:
            cases[f"tiny {name}"] = partial(tiny, name, Path(folder) / name)
        cases[TRAINED] = trained
        for name in chosen or cases:
            found, before = cases[name](), content.get(name)
            if before is not None:
                moved = max(abs(a - b) for a, b in zip(found["latents"], before["latents"], strict=True))
                print(f"{name}: moved by {moved:.3g}")
            content[name] = found
    write(VALUES, {name: values for name, values in content.items() if name in cases})
    presets = recorded() if PRESETS.exists() else {}
    presets |= {name: now for name, now in shipped().items() if f"preset {name}" in (chosen or cases)}
    write(PRESETS, {name: then for name, then in presets.items() if name in shipped()})


def write(file: Path, content: dict[str, Any]) -> None:
    """An entry a line, in the order in which they came."""
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in content.items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
