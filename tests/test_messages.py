"""What a message advises exists: every option and every setting that the package's sentences name."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from imax_dist.cli.main import build_parser
from imax_dist.cli.parser import VerbParser

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "imax_dist").rglob("*.py"))

OF_OTHERS = {"jobs_by_state", "journal_mode", "user_version", "other_height", "other_width"} | {
    "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "locking_mode",
    "add_generation_prompt", "enable_thinking", "im_end", "im_start", "model_index"
} | {
    "locking_mode", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"
}  # fmt: skip
"""Words of SQL, chat templates, diffusers' files and shapes."""


def sentences(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string that is no docstring; what is filled in stands as ``{}``."""
    tree = ast.parse(source)
    told = {
        id(statement.value)
        for node in ast.walk(tree)
        for statement in (
            getattr(node, "body", None) if isinstance(getattr(node, "body", None), list) else []
        )
        if isinstance(statement, ast.Expr)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told | inside:
            yield node.lineno, node.value


def options(parser: VerbParser) -> Iterator[str]:
    """Of a parser and of all verbs under it."""
    for action in parser.declared()._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from options(verb)


def defined(source: str) -> Iterator[str]:
    """Names a module gives to fields, parameters and functions, and strings of one word."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            yield node.value


def keys(value: object) -> Iterator[str]:
    """Of a YAML file, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from keys(inner)


@pytest.fixture(scope="module")
def known_options() -> set[str]:
    return set(options(build_parser()))


@pytest.fixture(scope="module")
def known_names() -> set[str]:
    names = {name for path in SOURCES for name in defined(path.read_text(encoding="utf-8"))}
    for path in (ROOT / "configs").rglob("*.yaml"):
        names |= set(keys(yaml.safe_load(path.read_text(encoding="utf-8"))))
    return names | OF_OTHERS


def unknown_options(source: str, known: set[str]) -> list[str]:
    """In strings of several words."""
    return [
        f"line {line}: {word}"
        for line, text in sentences(source)
        if " " in text
        for word in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", text)
        if word not in known
    ]


def unknown_names(source: str, known: set[str]) -> list[str]:
    """Words with an underscore in strings of several words."""
    return [
        f"line {line}: {word}"
        for line, text in sentences(source)
        if " " in text
        for word in re.findall(r"(?<![\w./-])[a-z]+(?:_[a-z]+)+(?![\w(])", text)
        if word not in known
    ]


def named(path: Path) -> str:
    return path.relative_to(ROOT / "imax_dist").as_posix()


def test_every_option_in_a_sentence_is_one_of_a_verb(known_options: set[str]) -> None:
    found = {
        named(path): wrong
        for path in SOURCES
        if (wrong := unknown_options(path.read_text(encoding="utf-8"), known_options))
    }
    assert found == {}


def test_every_setting_in_a_sentence_exists(known_names: set[str]) -> None:
    found = {
        named(path): wrong
        for path in SOURCES
        if (wrong := unknown_names(path.read_text(encoding="utf-8"), known_names))
    }
    assert found == {}


def test_advice_that_does_not_exist_is_found(known_options: set[str], known_names: set[str]) -> None:
    source = 'raise CannotWrite(f"{folder} is full; more memory (parallel: vae_memory), or --no-such-option")'
    assert unknown_names(source, known_names) == ["line 1: vae_memory"]
    assert unknown_options(source, known_options) == ["line 1: --no-such-option"]
    fine = '"set vae_memory_gib, or --resume auto"'
    assert not unknown_names(fine, known_names)
    assert not unknown_options(fine, known_options)
    assert not unknown_names('def f():\n    """A no_such_word in a docstring."""', known_names)


ACTS = r"(?:gets?|prints?|may raise|is (?:called|told))"
"""What a docstring says of a function that is handed in."""


def unknown_parameters(source: str) -> list[str]:
    """Names that a docstring has act, which neither the function nor what it is in has."""
    return list(_unknown_parameters(ast.parse(source), set()))


def _unknown_parameters(node: ast.AST, known: set[str]) -> Iterator[str]:
    for inner in ast.iter_child_nodes(node):
        names = known
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if isinstance(inner, ast.ClassDef):
                names = known | set(defined(ast.unparse(inner)))
            else:
                names = known | {part.arg for part in ast.walk(inner.args) if isinstance(part, ast.arg)}
            told = " ".join((ast.get_docstring(inner) or "").split())
            for name in re.findall(rf"``([a-z_]+)`` {ACTS}\b", told):
                if name not in names:
                    yield f"{inner.name}: {name}"
        yield from _unknown_parameters(inner, names)


def test_what_a_docstring_says_is_called_is_a_parameter() -> None:
    found = {named(path): wrong for path in SOURCES if (wrong := unknown_parameters(path.read_text("utf-8")))}
    assert found == {}
    wrong = 'def f(note):\n    """Beats; ``tell`` gets each report, ``note`` is called at the end."""'
    assert unknown_parameters(wrong) == ["f: tell"]
