"""Manifests as lines of JSON, as YAML and as plain prompts, each to entries with line numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import yaml

LONGEST_LINE = 1 << 20
LONGEST_YAML = 1 << 20
"""Characters; YAML is read whole, at a thousand times its size and slowly."""
LARGEST_DEPTH = 20


class Entry(NamedTuple):
    """One poster as written."""

    line: int
    fields: dict[str, Any]


class Mistake(NamedTuple):
    """What is wrong on a line, as one sentence."""

    line: int
    text: str


class Refused(Exception):
    """A construct that is legal YAML and not read here."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.mistake = Mistake(line, text)


Parsed: TypeAlias = Iterator[Entry | Mistake]
"""Line by line, so that a reader who stops early has held little."""


def read_jsonl(text: str) -> Parsed:
    """One JSON object a line; empty lines and lines that begin with # are passed over."""
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            yield Entry(number, json_object(line))
        except ValueError as error:
            yield Mistake(number, str(error))


def read_prompts(text: str) -> Parsed:
    """One prompt a line; empty lines and lines that begin with # are passed over."""
    for number, line in enumerate(_lines(text), start=1):
        prompt = line.strip()
        if prompt and not prompt.startswith("#"):
            yield Entry(number, {"prompt": prompt})


def read_yaml(text: str) -> Parsed:
    """A list of mappings; aliases are refused."""
    if len(text) > LONGEST_YAML:
        yield Mistake(1, f"a YAML list may have {LONGEST_YAML} characters; write a long one as JSON Lines")
        return
    try:
        _refuse_aliases(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except Refused as refused:
        yield refused.mistake
        return
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error) or "nested too deeply"
        yield Mistake(mark.line + 1 if mark else 1, f"not valid YAML: {problem}")
        return
    if root is not None and not isinstance(root, yaml.SequenceNode):
        yield Mistake(1, "the top level must be a list, one `- prompt: ...` a poster")
        return
    for node in root.value if root is not None else []:
        line = node.start_mark.line + 1
        try:
            yield Entry(line, _yaml_mapping(node))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            yield Mistake(line, str(getattr(error, "problem", None) or error))


def _lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def json_object(line: str) -> dict[str, Any]:
    """One JSON object without repeated keys, constants like NaN or deep nesting. Raises ValueError."""
    if len(line) > LONGEST_LINE:
        raise ValueError(f"the line is longer than {LONGEST_LINE} characters")
    try:
        value = json_value(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object: {...}")
    return value


def json_value(text: str) -> Any:
    """Any JSON, as strictly. Raises JSONDecodeError for what is no JSON, ValueError for what is not read."""
    try:
        value = STRICT.decode(text)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        if "digits" not in str(error):
            raise
        raise ValueError("a number has too many digits") from error
    _require_shallow(value)
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that can be used")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"field {twice[:80]!r} is given twice")
    return fields


STRICT = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_repeats)


def _refuse_aliases(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise Refused(_line(event), f"*{event.anchor}: YAML aliases are not supported")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > LARGEST_DEPTH:
            raise Refused(_line(event), "nested too deeply")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _yaml_mapping(node: yaml.Node) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("an entry must be `key: value` lines")
    names = [key.value for key, _ in node.value]
    twice = [str(name) for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"field {twice[0][:80]!r} is given twice")
    loader = yaml.SafeLoader("")
    value = loader.construct_document(node)
    if not all(isinstance(name, str) for name in value):
        raise ValueError("every field's name must be text")
    return dict(value)


def _require_shallow(value: Any) -> None:
    pending: list[tuple[Any, int]] = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if depth > LARGEST_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(item, dict | list):
            children = item.values() if isinstance(item, dict) else item
            pending.extend((child, depth + 1) for child in children)
