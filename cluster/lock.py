"""Write gpu.lock: every package of the GPU image with its version and hashes, from an index's metadata alone.

`python cluster/lock.py` from the project's root, with `uv` on the path; nothing is downloaded but metadata.
Versions are those of constraints.txt; what it does not name (CUDA's libraries, triton, the attention kernel)
is what the index has newest that fits. Wheels for x86-64 Linux and Python 3.12, the base image's own.
"""

from __future__ import annotations

import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "cluster" / "gpu.lock"
EXTRAS = ("serve", "gpu", "postgres", "deliver", "lora")
KERNELS = ("flash-attn-4>=4.0.0b36",)
"""Beyond what torch brings; a version before the first final one has to be named."""
HEAD = """# Of the GPU image, by cluster/lock.py: pip install --require-hashes --no-deps -r gpu.lock
"""


def resolved() -> list[dict[str, Any]]:
    """The packages, each with its wheels or its source."""
    with tempfile.TemporaryDirectory() as folder:
        kernels, found = Path(folder) / "kernels.in", Path(folder) / "pylock.toml"
        kernels.write_text("\n".join(KERNELS))
        command = ["uv", "pip", "compile", "pyproject.toml", str(kernels), "-c", "constraints.txt", "--quiet"]
        command += [f"--extra={name}" for name in EXTRAS]
        command += ["--python-version=3.12", "--python-platform=x86_64-manylinux_2_28"]
        subprocess.run([*command, "--format=pylock.toml", "-o", str(found)], cwd=ROOT, check=True)
        packages: list[dict[str, Any]] = tomllib.loads(found.read_text())["packages"]
    return packages


def line(package: dict[str, Any]) -> str:
    """``name==version --hash=sha256:...``; a source only where there is no wheel."""
    files = package.get("wheels") or [package["sdist"]]
    hashes = sorted({file["hashes"]["sha256"] for file in files})
    return " ".join(
        [f"{package['name']}=={package['version']}", *(f"--hash=sha256:{each}" for each in hashes)]
    )


if __name__ == "__main__":
    LOCK.write_text(HEAD + "".join(f"{line(package)}\n" for package in resolved()))
    print(f"{LOCK.relative_to(ROOT)}: {len(LOCK.read_text().splitlines()) - 1} packages")
