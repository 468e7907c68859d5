"""Settings: YAML to dataclasses, and errors that name the key and the nearest right one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from imax_dist import config, settings_mapping
from imax_dist.errors import BadConfig, MissingInput


@dataclass(frozen=True)
class Inner:
    ratio: float = 1.0
    mode: Literal["fast", "exact"] = "exact"


@dataclass(frozen=True)
class Outer:
    steps: int
    name: str = "plain"
    limit: float | None = None
    strict: bool = True
    inner: Inner = field(default_factory=Inner)
    dtype: dict[str, str] = field(default_factory=dict)


def load(**mapping: Any) -> Outer:
    return settings_mapping.from_mapping(Outer, {"steps": 4, **mapping}, where="file.yaml")


def test_missing_keys_take_their_defaults() -> None:
    assert load() == Outer(steps=4)


def test_nested_mappings_become_nested_dataclasses() -> None:
    assert load(inner={"mode": "fast"}).inner == Inner(mode="fast")


def test_a_whole_number_serves_as_a_number() -> None:
    ratio = load(inner={"ratio": 2}).inner.ratio
    assert ratio == 2.0
    assert isinstance(ratio, float)
    assert isinstance(load(limit=3).limit, float)


def test_null_is_a_value_only_where_none_is_allowed() -> None:
    assert load(limit=None).limit is None
    with pytest.raises(BadConfig, match=r"file.yaml: name must be text, got None"):
        load(name=None)


def test_free_mappings_are_copied() -> None:
    given = {"cpu": "float32"}
    loaded = load(dtype=given).dtype
    assert loaded == given
    assert loaded is not given


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"stepz": 3},
            r"file.yaml: unknown key 'stepz'; did you mean 'steps'\? known: steps, name",
        ),
        ({"qqqq": 3}, r"unknown key 'qqqq'; known: steps, name, limit"),
        ({7: 3}, r"unknown key '7'; known: "),
        ({"steps": 2.5}, r"file.yaml: steps must be a whole number, got 2.5"),
        ({"steps": True}, r"steps must be a whole number, got True"),
        ({"steps": "4"}, r"steps must be a whole number, got '4'"),
        ({"name": 3}, r"name must be text, got 3"),
        ({"limit": "high"}, r"limit must be a number, got 'high'"),
        ({"limit": False}, r"limit must be a number, got False"),
        ({"strict": 1}, r"strict must be true or false, got 1"),
        ({"inner": 3}, r"file.yaml: inner must hold keys, got 3"),
        ({"inner": {"rato": 1}}, r"file.yaml: inner: unknown key 'rato'; did you mean 'ratio'"),
        (
            {"inner": {"mode": "exac"}},
            r"inner: mode: 'exac' is not a choice; did you mean 'exact'\?",
        ),
        ({"inner": {"mode": ["fast"]}}, r"inner: mode: \['fast'\] is not a choice"),
        ({"dtype": "float32"}, r"dtype must be keys and values, got 'float32'"),
    ],
)
def test_a_mistake_names_where_it_is_and_what_is_right(mapping: dict[Any, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        settings_mapping.from_mapping(Outer, {"steps": 4, **mapping}, where="file.yaml")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(BadConfig, match=r"file.yaml: key 'steps' is missing"):
        settings_mapping.from_mapping(Outer, {}, where="file.yaml")


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("gausian", "did you mean 'gaussian'? known: gaussian, haar"),
        ("zzz", "known: gaussian, haar"),
    ],
)
def test_suggestion_offers_a_near_name_or_the_list(wrong: str, expected: str) -> None:
    assert config.suggestion(wrong, ["gaussian", "haar"]) == expected


def test_choice_returns_the_entry_or_says_which_exist() -> None:
    known = {"paper": 1, "constant": 2}
    assert config.choice("guidance.schedule", "paper", known) == 1
    with pytest.raises(BadConfig, match=r"guidance.schedule: 'papr' is not known; did you mean 'paper'\?"):
        config.choice("guidance.schedule", "papr", known)


def test_load_yaml_reads_a_mapping_and_takes_an_empty_file_for_none(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("a: {b: 1}\n")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert config.load_yaml(tmp_path / "some.yaml") == {"a": {"b": 1}}
    assert config.load_yaml(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", r"bad.yaml line \d+: not valid YAML"),
        (b"- 1\n- 2\n", r"bad.yaml: the top level must be `key: value` lines"),
        (b"a: \xff\xfe\n", r"bad.yaml cannot be read"),
        (b"a: !!python/object/apply:os.getcwd []\n", r"bad.yaml line 1: not valid YAML"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(BadConfig, match=message):
        config.load_yaml(tmp_path / "bad.yaml")


def test_a_file_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"none.yaml cannot be read"):
        config.load_yaml(tmp_path / "none.yaml")


def test_named_settings_are_found_by_kind_and_name() -> None:
    assert set(config.named_configs("presets")) >= {"paper", "official", "imax", "direct"}
    assert config.load_named("presets", "imax")["attention"] == "one_text"


def test_every_kind_of_file_has_a_name_of_its_own_in_sentences() -> None:
    folders = {path.name for path in config.config_folder().iterdir() if path.is_dir()}
    assert set(config.KINDS) == folders
    with pytest.raises(BadConfig, match="study 'foo' is not known"):
        config.load_named("studies", "foo")


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadConfig, match=r"preset 'offical' is not known; did you mean 'official'\?"):
        config.load_named("presets", "offical")


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("rope.rule=none", {"rope": {"rule": "none", "floor": True}}),
        ("rope.factor=2.5", {"rope": {"rule": "ntk", "floor": True, "factor": 2.5}}),
        ("rope.factor=", {"rope": {"rule": "ntk", "floor": True, "factor": None}}),
        ("patch_shift=false", {"rope": {"rule": "ntk", "floor": True}, "patch_shift": False}),
        ("text.copies=grid", {"rope": {"rule": "ntk", "floor": True}, "text": {"copies": "grid"}}),
        ("note=a=b", {"rope": {"rule": "ntk", "floor": True}, "note": "a=b"}),
    ],
)
def test_set_key_changes_one_key_with_a_yaml_value(assignment: str, expected: dict[str, Any]) -> None:
    mapping: dict[str, Any] = {"rope": {"rule": "ntk", "floor": True}}
    config.set_key(mapping, assignment)
    assert mapping == expected


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("rope.rule", r"--set 'rope.rule' is not KEY=VALUE; write for example rope.rule=none"),
        ("=3", r"--set '=3' is not KEY=VALUE"),
        ("steps.native=3", r"--set 'steps.native=3': steps holds a single value, not keys"),
        ("steps=[1", r"--set 'steps=\[1': the value is not valid YAML"),
    ],
)
def test_set_key_refuses_what_it_cannot_apply(assignment: str, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        config.set_key({"steps": 4}, assignment)


def test_to_mapping_undoes_from_mapping() -> None:
    settings = load(limit=2.5, inner={"mode": "fast"}, dtype={"cpu": "float32"})
    assert (
        settings_mapping.from_mapping(Outer, settings_mapping.to_mapping(settings), where="again") == settings
    )


def test_fingerprint_ignores_the_order_of_keys_and_nothing_else() -> None:
    first = settings_mapping.fingerprint({"a": 1, "b": {"c": [1, 2], "d": None}})
    assert first == settings_mapping.fingerprint({"b": {"d": None, "c": (1, 2)}, "a": 1})
    assert first != settings_mapping.fingerprint({"a": 1, "b": {"c": [2, 1], "d": None}})
    assert len(first) == 64


def test_fingerprint_of_settings_changes_with_any_field() -> None:
    assert settings_mapping.fingerprint(load()) == settings_mapping.fingerprint(Outer(steps=4))
    assert settings_mapping.fingerprint(load()) != settings_mapping.fingerprint(load(inner={"ratio": 1.5}))


def test_settings_are_a_name_or_a_path(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("compile: regional\n", encoding="utf-8")
    assert config.load_config("parallel", str(own)) == ({"compile": "regional"}, str(own))
    assert config.load_config("parallel", "ring")[1] == "configs/parallel/ring.yaml"
    with pytest.raises(BadConfig, match="parallel 'xyz' is not known; known: auto"):
        config.load_config("parallel", "xyz")
    with pytest.raises(MissingInput, match=r"parallel file no\.yaml does not exist"):
        config.load_config("parallel", "no.yaml")
