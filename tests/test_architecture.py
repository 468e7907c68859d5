"""The laws of the house, read from the source: who imports whom, and how large things may grow.

Lazy imports inside functions and imports for type checkers count like any other.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "imax_dist"
SOURCES = sorted(PACKAGE.rglob("*.py"))
assert SOURCES, f"no package at {PACKAGE}"

LONGEST_FUNCTION = 40
LONGEST_FILE = 300
SHORTEST_FILE = 40
APART = "Apart because"
"""How the docstring of a smaller file with one user gives its reason."""
APART_BY_ROOM = ("method/baselines/",)
"""Rooms of small files: one method that the paper compares with a file."""
MOST_POSITIONAL = 4
SIGNATURES_OF_OTHERS = {"__call__", "forward", "backward"}
"""Methods whose parameters a library sets."""

TOP_LEVEL = {
    "version",
    "errors",
    "geometry",
    "shapes",
    "config",
    "settings_mapping",
    "events",
    "wording",
    "named_file",
}
"""Modules that any other may import; they import no sub-package."""

SIBLINGS: dict[str, set[str]] = {
    "method": set(),
    "liveness": set(),
    "parallel": {"liveness"},
    "super_resolution": set(),
    "output": {"super_resolution"},
    "vae": {"parallel"},
    "models": {"method", "parallel", "vae"},
    "pipeline": {"liveness", "method", "parallel", "vae", "models", "super_resolution", "output"},
    "study": {"method", "parallel", "vae", "models", "super_resolution", "output", "pipeline", "planner"},
    "launcher": {"liveness", "parallel"},
    "planner": {"method", "parallel", "vae", "models", "super_resolution", "pipeline"},
    "calibrate": {"parallel", "models", "pipeline", "planner"},
    "jobs": {"liveness", "pipeline", "output", "planner"},
    "service": {"pipeline", "output", "planner", "jobs"},
    "cli": {
        "liveness",
        "method",
        "parallel",
        "vae",
        "models",
        "output",
        "pipeline",
        "launcher",
        "planner",
        "calibrate",
        "study",
        "jobs",
        "service",
    },
    "__init__": {"pipeline"},
    "__main__": {"cli"},
    **{name: set() for name in TOP_LEVEL},
}
"""What each part may import besides itself and the top-level modules."""

NETWORK_HOMES = ("models/", "vae/", "parallel/engines/diffusers.py", "study/train/")

LIBRARY_HOMES: dict[str, tuple[str, ...]] = {
    "ray": ("jobs/", "service/"),
    **dict.fromkeys(("sqlalchemy", "psycopg"), ("jobs/store/",)),
    **dict.fromkeys(("obstore", "boto3", "moto"), ("jobs/deliver.py",)),
    "xfuser": ("parallel/engines/xfuser.py",),
    **dict.fromkeys(("diffusers", "transformers", "tokenizers"), NETWORK_HOMES),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "pydantic", "prometheus_client"), ("service/",)),
    "matplotlib": ("study/experiments/figure.py", "study/experiments/pareto.py"),
    **dict.fromkeys(("PIL", "tifffile", "pyvips", "pikepdf", "pi_heif"), ("output/",)),
}
"""The only places that may import a library, as path beginnings inside the package."""

PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
RUNS_CODE = {"trust_remote_code", "custom_pipeline"}
LOADS_PICKLES = {"torch.load", "numpy.load", "torch.hub.load"}
ENVIRONMENT_WRITERS = {"os.putenv", "os.unsetenv"} | {
    f"os.environ.{name}" for name in ("update", "setdefault", "pop", "popitem", "clear")
}


def imported_modules(tree: ast.AST, path: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of all that the module at ``path`` (in the package) imports."""
    folder = ["imax_dist", *path.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            loader = ast.unparse(node.func).rpartition(".")[2]
            if loader in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def import_violations(source: str, path: str) -> list[str]:
    """What in ``source`` breaks the import law, were it the file ``path`` of the package."""
    part = path.split("/")[0].removesuffix(".py")
    if part not in SIBLINGS:
        return [f"{path}: {part} is no part of the layout"]
    found = []
    for line, module in imported_modules(ast.parse(source), path):
        root, *inside = module.split(".")
        if root == "imax_dist":
            to = inside[0] if inside else ""
            if to in SIBLINGS and to not in SIBLINGS[part] | TOP_LEVEL | {part, "__init__"}:
                found.append(f"{path}:{line}: {part} imports {module}")
        elif root in LIBRARY_HOMES and not path.startswith(LIBRARY_HOMES[root]):
            found.append(f"{path}:{line}: {root} belongs in {', '.join(LIBRARY_HOMES[root])}")
    return found


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> modules of the package it imports, at any place; ``sources`` by path in the package."""
    modules = {module_name(path): path for path in sources}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, path in modules.items():
        for _, name in imported_modules(ast.parse(sources[path]), path):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name and name != module:
                graph[module].add(name)
    return graph


def module_name(path: str) -> str:
    """``models/lora/merge.py`` as ``imax_dist.models.lora.merge``."""
    return ".".join(["imax_dist", *path.removesuffix(".py").split("/")]).removesuffix(".__init__")


def import_circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module, each sorted."""

    def reached(start: str) -> set[str]:
        found, waiting = set(), [start]
        while waiting:
            for module in graph[waiting.pop()] - found:
                found.add(module)
                waiting.append(module)
        return found

    reach = {module: reached(module) for module in graph}
    circles = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in graph
        if module in reach[module]
    }
    return sorted(list(circle) for circle in circles)


def crumbs(sources: Mapping[str, str]) -> list[str]:
    """Files under 40 lines that one other file uses, and that give no reason to be apart."""
    graph = import_graph(sources)
    users = {module: [other for other in graph if module in graph[other]] for module in graph}
    found = []
    for path, source in sources.items():
        module = module_name(path)
        is_small = 0 < len(source.splitlines()) < SHORTEST_FILE
        reason = " ".join((ast.get_docstring(ast.parse(source)) or "").split())
        has_reason = path.startswith(APART_BY_ROOM) or path.endswith("__.py") or APART in reason
        if is_small and len(users[module]) == 1 and not has_reason:
            found.append(f"{path} has one user, {users[module][0]}")
    return found


def full_names(tree: ast.AST) -> dict[str, str]:
    """Local name -> dotted origin of every import, so that aliases hide nothing."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                plain = alias.name.split(".")[0]
                names[alias.asname or plain] = alias.name if alias.asname else plain
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def resolved(node: ast.AST, names: dict[str, str]) -> str:
    """``t.load`` as ``torch.load`` if ``t`` is torch."""
    first, dot, rest = ast.unparse(node).partition(".")
    return names.get(first, first) + dot + rest


def function_violations(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Functions that are too long (their docstring not counted) or take too many by position."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
        if lines > LONGEST_FUNCTION:
            yield node.lineno, f"{node.name} has {lines} lines, at most {LONGEST_FUNCTION}"
        positional = [arg.arg for arg in [*node.args.posonlyargs, *node.args.args]]
        count = len([name for name in positional if name not in {"self", "cls"}])
        if count > MOST_POSITIONAL and node.name not in SIGNATURES_OF_OTHERS:
            yield node.lineno, f"{node.name} takes {count} by position, at most {MOST_POSITIONAL}"


def state_violations(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Globals, environment writes and bare excepts."""
    names = full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield node.lineno, "global statement"
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"
        elif isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            written = node.value if isinstance(node, ast.Subscript) else node
            if resolved(written, names) == "os.environ":
                yield node.lineno, "environment write"
        elif isinstance(node, ast.Call) and resolved(node.func, names) in ENVIRONMENT_WRITERS:
            yield node.lineno, "environment write"


def pickle_violations(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Anything that can load a pickle."""
    names = full_names(tree)
    for line, module in imported_modules(tree, "file.py"):
        if module.split(".")[0] in PICKLES:
            yield line, f"{module} pickles"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and resolved(node, names) in LOADS_PICKLES:
            yield node.lineno, f"{resolved(node, names)} may load a pickle"
        if isinstance(node, ast.keyword) and node.arg in RUNS_CODE and not is_false(node.value):
            yield node.value.lineno, f"{node.arg} runs what a model's folder brings"
        if isinstance(node, ast.Constant) and node.value in (*RUNS_CODE, "RAY_AUTH_MODE"):
            yield node.lineno, f"{node.value} is not for the package to set"


def is_false(node: ast.expr) -> bool:
    """A literal ``False``: with None transformers asks at the terminal."""
    return isinstance(node, ast.Constant) and node.value is False


def house_violations(source: str) -> list[str]:
    """What in ``source`` breaks a law of size or style."""
    tree = ast.parse(source)
    found = [*function_violations(tree), *state_violations(tree), *pickle_violations(tree)]
    length = len(source.splitlines())
    if length > LONGEST_FILE:
        found.append((length, f"the file has {length} lines, at most {LONGEST_FILE}"))
    if length and "from __future__ import annotations" not in source and len(tree.body) > 1:
        found.append((1, "from __future__ import annotations is missing"))
    return [f"line {line}: {what}" for line, what in sorted(found)]


def named(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_the_import_law_holds(path: Path) -> None:
    assert import_violations(path.read_text(encoding="utf-8"), named(path)) == []


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_functions_and_files_are_small_and_nothing_is_ambient(path: Path) -> None:
    assert house_violations(path.read_text(encoding="utf-8")) == []


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return {named(path): path.read_text(encoding="utf-8") for path in SOURCES}


def test_there_is_no_import_circle_not_even_a_lazy_one(sources: dict[str, str]) -> None:
    assert import_circles(import_graph(sources)) == []


def test_a_rank_starts_without_the_store_and_its_database() -> None:
    """Half a second of every rank's start, for what only the driver needs."""
    code = (
        "import sys, imax_dist.jobs.rank\n"
        "sys.exit(str({'sqlalchemy', 'imax_dist.jobs.board'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stderr.strip() == "set()"


def test_a_small_file_with_one_user_has_a_reason(sources: dict[str, str]) -> None:
    assert crumbs(sources) == []


@pytest.mark.parametrize(
    ("sources", "circle"),
    [
        ({"a.py": "from imax_dist import b", "b.py": "import imax_dist.a"}, ["a", "b"]),
        ({"a.py": "def f():\n    from imax_dist import b", "b.py": "from . import a"}, ["a", "b"]),
        ({"a.py": "if TYPE_CHECKING:\n    from .b import x", "b.py": "from .a import y"}, ["a", "b"]),
        ({"a.py": "from . import b", "b.py": "from . import c", "c.py": "from . import a"}, ["a", "b", "c"]),
        ({"p/__init__.py": "from imax_dist.p import a", "p/a.py": "from imax_dist.p import X"}, ["p", "p.a"]),
    ],
)
def test_an_import_circle_is_found(sources: dict[str, str], circle: list[str]) -> None:
    assert import_circles(import_graph(sources)) == [[f"imax_dist.{name}" for name in circle]]


def test_a_chain_of_imports_is_no_circle() -> None:
    chain = {"a.py": "import imax_dist.b\nimport imax_dist.c", "b.py": "from imax_dist import c", "c.py": ""}
    assert import_circles(import_graph(chain)) == []


def test_a_crumb_is_found_unless_it_gives_its_reason_or_has_two_users() -> None:
    crumb, user = {"a.py": "x = 1"}, "from imax_dist.a import x"
    assert crumbs({**crumb, "b.py": user}) == ["a.py has one user, imax_dist.b"]
    assert crumbs({**crumb, "b.py": user, "c.py": user}) == []
    assert crumbs({"a.py": '"""X.\n\nApart\nbecause it is."""', "b.py": user}) == []
    assert crumbs({"a.py": "x = 1\n" * 40, "b.py": user}) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("method/flow.py", "from imax_dist.parallel import mesh"),
        ("method/flow.py", "import imax_dist.output.atomic"),
        ("method/flow.py", "from imax_dist import pipeline"),
        ("method/flow.py", "from ..output import atomic"),
        ("method/baselines/sdedit.py", "from ...models import flux"),
        ("method/flow.py", "def f():\n    from imax_dist.models import flux"),
        ("method/flow.py", "if TYPE_CHECKING:\n    from imax_dist.models import flux"),
        ("method/flow.py", "importlib.import_module('imax_dist.cli.main')"),
        ("parallel/ring.py", "from imax_dist.method.flow import endpoint"),
        ("output/image/finish.py", "from imax_dist.pipeline import request"),
        ("models/networks/flux.py", "from imax_dist.pipeline import request"),
        ("models/networks/flux.py", "from imax_dist.output import atomic"),
        ("parallel/ring.py", "from imax_dist.vae import rows"),
        ("vae/codec.py", "from imax_dist.models import base"),
        ("pipeline/render.py", "from imax_dist.jobs import pool"),
        ("pipeline/render.py", "from imax_dist.study import scenes"),
        ("study/ablation.py", "from imax_dist.jobs import pool"),
        ("jobs/pool.py", "from imax_dist.models import flux"),
        ("jobs/pool.py", "from imax_dist.cli import main"),
        ("planner/choose.py", "from imax_dist.jobs import pool"),
        ("planner/choose.py", "from imax_dist.calibrate import measure"),
        ("launcher/elastic.py", "from imax_dist.pipeline import ranks"),
        ("pipeline/render.py", "from imax_dist.planner import choose"),
        ("geometry.py", "from imax_dist.method import flow"),
        ("errors.py", "def f():\n    import imax_dist.jobs"),
        ("helpers.py", ""),
        ("pipeline/render.py", "def f():\n    import ray"),
        ("pipeline/render.py", "from ray.util import state"),
        ("pipeline/render.py", "import diffusers"),
        ("parallel/engines/xfuser.py", "import diffusers"),
        ("study/ablation.py", "import transformers"),
        ("jobs/pool.py", "from tokenizers import Tokenizer"),
        ("parallel/engines/torch.py", "import xfuser"),
        ("study/scenes/render.py", "from PIL import Image"),
        ("models/networks/flux.py", "import tifffile as t"),
        ("pipeline/render.py", "__import__('pyvips')"),
        ("cli/main.py", "import pikepdf"),
        ("cli/serve.py", "import uvicorn"),
        ("jobs/pool.py", "from fastapi import FastAPI"),
        ("jobs/pool.py", "from imax_dist.service import app"),
    ],
)
def test_a_forbidden_import_is_found(path: str, source: str) -> None:
    assert len(import_violations(source, path)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "method/flow.py",
            "from imax_dist.shapes import Latents\nfrom . import rope\nimport torch",
        ),
        ("parallel/engines/diffusers.py", "import diffusers\nfrom ..ring import attention"),
        ("vae/codec.py", "import diffusers\nfrom imax_dist.parallel import mesh"),
        ("parallel/engines/xfuser.py", "import xfuser\nfrom imax_dist import errors"),
        (
            "models/networks/flux.py",
            "import diffusers, transformers\nfrom imax_dist.method import rope",
        ),
        (
            "pipeline/render.py",
            "from imax_dist.models import flux\nfrom imax_dist.output import atomic",
        ),
        ("study/train/vae.py", "import diffusers\nfrom imax_dist.pipeline import render"),
        ("jobs/pool.py", "import ray\nfrom imax_dist.pipeline import render\nimport raylike"),
        ("output/image/finish.py", "from PIL import Image\nimport tifffile, pyvips, pikepdf"),
        (
            "cli/main.py",
            "from imax_dist.jobs import pool\nfrom imax_dist import __version__, study",
        ),
        ("config.py", "from imax_dist.errors import BadConfig"),
        ("__main__.py", "from imax_dist.cli.main import main"),
    ],
)
def test_an_allowed_import_passes(path: str, source: str) -> None:
    assert import_violations(source, path) == []


def long_function(lines: int) -> str:
    return "def f():\n    '''Doc\n    string.'''\n" + "    x = 1\n" * lines


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (long_function(LONGEST_FUNCTION + 1), "f has 41 lines, at most 40"),
        ("x = 1\n" * (LONGEST_FILE + 1), "the file has 301 lines, at most 300"),
        ("def f(a, b, /, c, d, e): ...", "f takes 5 by position, at most 4"),
        ("def f():\n    global x\n    x = 1", "global statement"),
        ("try:\n    f()\nexcept:\n    pass", "bare except"),
        ("import os\nos.environ['A'] = '1'", "environment write"),
        ("import os as system\nsystem.environ['A'] += '1'", "environment write"),
        ("import os\ndel os.environ['A']", "environment write"),
        ("import os\nos.environ = {}", "environment write"),
        ("from os import environ\nenviron.setdefault('A', '1')", "environment write"),
        ("from os import environ as e\nfor e['A'] in 'ab': pass", "environment write"),
        ("from os import putenv\nputenv('A', '1')", "environment write"),
        ("import torch as t\nt.load('x')", "torch.load may load a pickle"),
        ("from torch import load\nread = load", "torch.load may load a pickle"),
        ("import numpy as np\nnp.load('x')", "numpy.load may load a pickle"),
        ("load(x, trust_remote_code=True)", "trust_remote_code runs what a model's folder brings"),
        ("load(x, trust_remote_code=None)", "trust_remote_code runs what a model's folder brings"),
        ("load(x, **{'custom_pipeline': y})", "custom_pipeline is not for the package to set"),
        ("variables['RAY_AUTH_MODE'] = 'disabled'", "RAY_AUTH_MODE is not for the package to set"),
        ("import pickle", "pickle pickles"),
        ("def f():\n    from cloudpickle import dumps", "cloudpickle.dumps pickles"),
        ("import torch\nx = 1", "from __future__ import annotations is missing"),
    ],
)
def test_a_breach_of_the_house_laws_is_found(source: str, message: str) -> None:
    assert any(message in found for found in house_violations(source))


@pytest.mark.parametrize(
    "source",
    [
        "",
        '"""Only a docstring."""',
        long_function(LONGEST_FUNCTION),
        "x = 1\n" * (LONGEST_FILE - 1),
        "class A:\n    def f(self, a, b, c, d, *, e): ...",
        "try:\n    f()\nexcept ValueError:\n    pass",
        "import os\nx = os.environ['A'] + os.environ.get('B', '')",
        "import torch, json\njson.load(x)\nmodel.load(y)\ntorch.loads",
        "mapping['environ'] = 1\nself.environ = 2",
    ],
)
def test_what_keeps_the_house_laws_passes(source: str) -> None:
    assert house_violations(f"from __future__ import annotations\n{source}" if source else "") == []
