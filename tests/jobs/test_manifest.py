"""Manifests: three spellings of the same jobs, every mistake with its line, strangers kept out."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import time
import tracemalloc
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imax_dist.errors import BadManifest, BadValue, ImaxError, MissingInput
from imax_dist.jobs.job import Job, JobFolder
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.manifest.read import Manifest, read_manifest, shard
from imax_dist.jobs.reconcile import add_jobs
from imax_dist.jobs.settings import Limits
from imax_dist.jobs.store import Store
from imax_dist.jobs.store.files import store_path
from imax_dist.models.files.assembled import named_parts
from imax_dist.named_file import MARK, NO_FILE, fields_naming_files
from imax_dist.output.image.settings import FinishSettings
from imax_dist.output.own_files import composed
from imax_dist.pipeline.named_files import Parts
from imax_dist.pipeline.request import Request

POSTERS = [
    {"id": "sea", "prompt": "a red sun", "size": "256x128", "seed": 3, "priority": 2},
    {"prompt": "a house", "steps": 4, "count": 2},
    {"id": "plain", "prompt": "hills, and a lake", "rope.rule": "none"},
]
JSONL = "\n".join(json.dumps(poster) for poster in POSTERS)
CSV = """id,prompt,size,seed,priority,steps,count,rope.rule
sea,a red sun,256x128,3,2,,,
,a house,,,,4,2,
plain,"hills, and a lake",,,,,,none
"""
YAML = """
- {id: sea, prompt: a red sun, size: 256x128, seed: 3, priority: 2}
- prompt: a house
  steps: 4
  count: 2
- id: plain
  prompt: hills, and a lake
  rope.rule: none
"""


def read(folder: Path, text: str, suffix: str = ".jsonl", **limits: Any) -> Manifest:
    path = folder / f"manifest{suffix}"
    path.write_text(text, encoding="utf-8", newline="")
    return read_manifest(path, Limits(**limits))


def mistakes(folder: Path, text: str, suffix: str = ".jsonl", **limits: Any) -> list[tuple[int, str]]:
    return [tuple(mistake) for mistake in read(folder, text, suffix, **limits).mistakes]


@pytest.mark.parametrize(
    ("suffix", "text"), [(".jsonl", JSONL), (".csv", CSV), (".yaml", YAML), (".yml", YAML)]
)
def test_every_spelling_gives_the_same_jobs(tmp_path: Path, suffix: str, text: str) -> None:
    manifest = read(tmp_path, text, suffix)
    assert manifest.mistakes == []
    sea, first, second, plain = manifest.jobs
    assert (sea.id, sea.request.size, sea.request.seed, sea.priority) == ("sea", "256x128", 3, 2)
    assert (first.request.seed, second.request.seed) == (0, 1)
    assert first.id != second.id
    assert plain.request.method == {"rope": {"rule": "none"}}
    assert [job.position for job in manifest.jobs] == [0, 1, 2, 3]


def test_an_id_is_the_hash_of_the_request_unless_given() -> None:
    request = Request("a red sun", size="64x64")
    assert make_job(request).id == request.fingerprint[:16]
    assert make_job(request, name="mine").id == "mine"
    assert make_job(Request("another", size="64x64")).id != make_job(request).id


def test_a_fingerprint_sees_the_files_that_a_request_names(tmp_path: Path) -> None:
    """A guide that was drawn anew under the same name is another poster, under the same id."""
    guide = tmp_path / "guide.png"
    request = Request("a red sun", guide=str(guide), lora=(f"{tmp_path / 'style.safetensors'}:0.5",))
    missing = make_job(request)
    guide.write_bytes(b"one")
    first = make_job(request)
    guide.write_bytes(b"another")
    second = make_job(request)
    (tmp_path / "style.safetensors").write_bytes(b"weights")
    jobs = (missing, first, second, make_job(request))
    assert len({job.fingerprint for job in jobs}) == 4
    assert len({job.id for job in jobs}) == 1
    assert make_job(request).fingerprint == jobs[-1].fingerprint


def test_a_fingerprint_sees_what_the_preset_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from imax_dist.jobs import make_job as module

    before = make_job(Request("a red sun")).fingerprint
    recipe = module.load_method(Request("a red sun", preset="paper"))
    monkeypatch.setattr(module, "load_method", lambda _: recipe)
    assert make_job(Request("a red sun")).fingerprint != before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "not valid JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"prompt": "x", "prompt": "y"}', "'prompt' is given twice"),
        ('{"size": "64x64"}', "the prompt is empty"),
        ('{"prompt": " "}', "prompt is empty"),
        ('{"prompt": "x", "siez": "1x1"}', "unknown field 'siez'; did you mean 'size'"),
        ('{"prompt": "x", "size": "64"}', "not WIDTHxHEIGHT"),
        ('{"prompt": "x", "size": "8x8"}', "between 16 and"),
        ('{"prompt": "x", "seed": "one"}', "seed must be a whole number"),
        ('{"prompt": "x", "seed": 1.5}', "seed must be a whole number"),
        ('{"prompt": "x", "seed": NaN}', "NaN is not a number"),
        ('{"prompt": "x", "preset": "imx"}', "did you mean 'imax'"),
        ('{"prompt": "x", "rope.rule": "nkt"}', "did you mean 'ntk'"),
        ('{"prompt": "x", "model": "embeded"}', "did you mean 'embedded'"),
        ('{"prompt": "x", "method": 3}', "method must hold keys"),
        ('{"prompt": "x", "count": 0}', "count 0 is outside"),
        ('{"prompt": "x", "count": true}', "count must be a whole number"),
        ('{"prompt": "x", "priority": "high"}', "priority must be a whole number"),
        ('{"prompt": "x", "id": "../../etc"}', "cannot name a folder"),
        ('{"prompt": "x", "id": "/root"}', "cannot name a folder"),
        ('{"prompt": "x", "id": ".."}', "cannot name a folder"),
        ('{"prompt": "x", "id": ["a"]}', "id must be text"),
        ('{"prompt": "\\ud800"}', "unpaired surrogate"),
        ('{"prompt": "x", "seed": ' + "9" * 5000 + "}", "digits"),
        ('{"prompt": "x", "seed": 9223372036854775807, "count": 2}', "start lower"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nested too deeply"),
    ],
)
def test_a_mistake_has_its_line_and_a_sentence(tmp_path: Path, line: str, message: str) -> None:
    found = mistakes(tmp_path, f'{{"prompt": "fine"}}\n\n{line}\n')
    assert len(found) == 1
    assert found[0][0] == 3
    assert message in found[0][1]


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = "\n".join(["{", '{"prompt": "x"}', "{", "{"])
    with pytest.raises(BadManifest, match="3 mistakes") as caught:
        read(tmp_path, text).require_sound(tmp_path / "manifest.jsonl")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:]] == [
        "  line 1",
        "  line 3",
        "  line 4",
    ]
    with pytest.raises(BadManifest, match=r"and 2 more; imax batch --check lists them all"):
        read(tmp_path, text).require_sound(tmp_path / "manifest.jsonl", most_shown=1)


def test_two_lines_with_one_id_are_a_mistake(tmp_path: Path) -> None:
    line = '{"id": "a", "prompt": "x"}'
    assert "is that of line 1" in mistakes(tmp_path, f"{line}\n{line}")[0][1]


def test_ids_that_differ_by_case_alone_are_refused(tmp_path: Path) -> None:
    """On a Mac or a Windows share, Sea and sea are one folder."""
    lines = '{"prompt": "x", "id": "Sea"}\n{"prompt": "y", "id": "sea"}'
    assert "differs from that of line 1 by case alone" in mistakes(tmp_path, lines)[0][1]
    store = Store(store_path(tmp_path))
    add_jobs(store, [make_job(Request("x"), name="Sea")], tmp_path)
    with pytest.raises(BadManifest, match="differs from 'Sea' of this folder by case alone"):
        add_jobs(store, [make_job(Request("x"), name="sea")], tmp_path)


def test_ids_of_any_script_are_taken_in_one_form(tmp_path: Path) -> None:
    lines = '{"prompt": "x", "id": "Ku\u0308ste"}\n{"prompt": "y", "id": "\u6d77"}'
    assert [job.id for job in read(tmp_path, lines).jobs] == ["K\u00fcste", "\u6d77"]


@pytest.mark.parametrize("twin", ["Ku\u0308ste", "k\u00fcste", "KU\u0308STE"])
def test_ids_that_differ_by_case_or_form_alone_are_refused(tmp_path: Path, twin: str) -> None:
    lines = f'{{"prompt": "x", "id": "K\u00fcste"}}\n{{"prompt": "y", "id": "{twin}"}}'
    (line, said), *more = mistakes(tmp_path, lines)
    assert (line, more) == (2, [])
    assert "by case alone" in said or "is that of line 1" in said
    store = Store(store_path(tmp_path))
    add_jobs(store, [make_job(Request("x"), name="K\u00fcste")], tmp_path)
    if twin != "Ku\u0308ste":
        with pytest.raises(BadManifest, match="of this folder by case alone"):
            add_jobs(store, [make_job(Request("x"), name=composed(twin))], tmp_path)


def test_two_lines_with_one_picture_are_a_mistake(tmp_path: Path) -> None:
    line = '{"prompt": "x"}'
    assert "another seed" in mistakes(tmp_path, f"{line}\n{line}")[0][1]


@pytest.mark.parametrize(
    ("limits", "line", "message"),
    [
        ({"prompt": 5}, {"prompt": "longer"}, "this pool takes 5"),
        ({"megapixels": 0.01}, {"prompt": "x", "size": "200x100"}, "over this pool's 0.01 megapixels"),
        ({"steps": 3}, {"prompt": "x", "steps": 4}, "over this pool's 3"),
        ({"count": 2}, {"prompt": "x", "count": 3}, "outside 1 to 2"),
        ({"posters": 2}, {"prompt": "x", "count": 3}, "more than 2 posters"),
        ({"files": False}, {"prompt": "x", "output": {"pdf": {"icc": "/etc/passwd"}}}, "does not allow"),
        ({"files": False}, {"prompt": "x", "guide": "/etc/passwd"}, "guide names a file.* does not allow"),
        ({"files": False}, {"prompt": "x", "lora": ["/proc/kmsg"]}, "lora names a file.* does not allow"),
        ({"files": False}, {"prompt": "x", "vae": "/etc/passwd"}, "vae names a file.* does not allow"),
        ({"files": False}, {"prompt": "x", "encoder": ["/etc"]}, "encoder names a file.* does not allow"),
        ({"files": False}, {"prompt": "x", "preset": "/etc/a.yaml"}, "preset names a file.* does not allow"),
        ({"models": ("embedded",)}, {"prompt": "x", "model": "/tmp/evil"}, "is not allowed here"),
    ],
)
def test_a_pool_has_its_limits(
    tmp_path: Path, limits: dict[str, Any], line: dict[str, Any], message: str
) -> None:
    assert re.search(message, mistakes(tmp_path, json.dumps(line), **limits)[0][1])


def test_a_model_in_one_file_has_its_parts_in_the_line_or_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    net, vae, text, other = (tmp_path / f"{name}.safetensors" for name in ("net", "vae", "text", "other"))
    for file in (net, vae, text, other):
        file.touch()
    lines = [{"vae": str(vae), "encoder": [str(text)]}, {"vae": str(vae), "encoder": str(text)}, {}]
    said = "\n".join(
        json.dumps({"prompt": f"{n}", "model": str(net), **line}) for n, line in enumerate(lines)
    )
    path = tmp_path / "posters.jsonl"
    path.write_text(said)
    manifest = read_manifest(path, Limits(), parts=Parts(str(other)))
    assert manifest.mistakes == []
    first, second, third = (job.request.model for job in manifest.jobs)
    assert first == second
    assert first == named_parts(str(net), vae=str(vae), text_encoders=[str(text)])
    assert third == named_parts(str(net), vae=str(other), text_encoders=[])
    assert read_manifest(path, Limits()).jobs[2].request.model == str(net)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"vae": "x"}, "vae and encoder go with a model in one file, but embedded is not one"),
        ({"vae": 1}, "vae must be the name of a file or folder, got 1"),
        ({"encoder": {"a": 1}}, "encoder must be a file, or a list of files and folders"),
        ({"model": "no.safetensors", "vae": "no.safetensors"}, "no.safetensors"),
    ],
)
def test_parts_that_are_none_are_mistakes(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    assert message in mistakes(tmp_path, json.dumps({"prompt": "x", **line}))[0][1]


@pytest.mark.parametrize("cls", [Request, FinishSettings])
def test_every_text_field_says_whether_it_names_a_file(cls: type[Any]) -> None:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        numbers = {int, float, bool, type(None)}
        hint = hints[field.name]
        only_numbers = hint in numbers or (typing.get_args(hint) and set(typing.get_args(hint)) <= numbers)
        assert only_numbers or MARK in field.metadata, f"{field.name}: say whether it names a file"


def test_a_field_without_a_mark_counts_as_the_name_of_a_file() -> None:
    @dataclasses.dataclass
    class Wanted:
        style: str
        size: int
        paper: str = dataclasses.field(default="A4", metadata=NO_FILE)

    values = {"style": "s", "size": 3, "paper": "A4", "unknown": ["x"], "empty": None}
    assert fields_naming_files(Wanted, values) == ["style", "unknown"]


def odd_files(folder: Path) -> dict[str, tuple[str, str]]:
    """Names that must be no more than a mistake of their line, and what is said of them."""
    os.mkfifo(folder / "pipe")
    (folder / "pipes").mkdir()
    os.mkfifo(folder / "pipes" / "a.safetensors")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "empty").touch()
    return {
        "long": ("a" * 5_000, "File name too long"),
        "long part": ("/tmp/" + "a" * 5_000, "File name too long"),
        "kmsg": ("/proc/kmsg", "is empty"),
        "null": ("/dev/zero", "is not a regular file"),
        "pipe": (str(folder / "pipe"), "is not a regular file"),
        "pipe in a folder": (str(folder / "pipes"), "is (a folder|not a regular file)"),
        "folder": ("/", "is a folder; name a file in it"),
        "loop": (str(folder / "loop"), "symbolic links"),
        "zero byte": ("a\0b", "null byte"),
        "empty": (str(folder / "empty"), "is empty"),
    }


@pytest.mark.timeout(60)
def test_a_name_that_cannot_be_opened_is_a_mistake_of_its_line_alone(tmp_path: Path) -> None:
    odd = odd_files(tmp_path)
    lines: list[dict[str, Any]] = [{"prompt": "first"}]
    wanted: list[tuple[int, str]] = []
    for name, message in odd.values():
        print_file = {"output": {"pdf": {"icc": name}}}
        named: list[dict[str, Any]] = [{"guide": name}, {"lora": [name]}, print_file]
        for line in named:
            lines.append({"prompt": str(len(lines)), **line})
            wanted.append((len(lines), message))
    for field, message in (
        ("model", "neither known nor a folder|File name too long"),
        ("preset", "too long"),
    ):
        lines.append({"prompt": field, field: "a" * 5_000 + ".yaml"})
        wanted.append((len(lines), message))
    lines.append({"prompt": "last"})
    manifest = read(tmp_path, "\n".join(map(json.dumps, lines)))
    assert [job.request.prompt for job in manifest.jobs] == ["first", "last"]
    for (number, text), (expected, message) in zip(manifest.mistakes, wanted, strict=True):
        assert number == expected
        assert re.search(message, text), (lines[number - 1], text)
        assert len(text) < 400


def test_a_pool_for_strangers_says_nothing_about_its_files(tmp_path: Path) -> None:
    """What is there and what is not is answered alike."""
    for model in ("/etc", "/nowhere", "./x"):
        found = mistakes(tmp_path, json.dumps({"prompt": "x", "model": model}), files=False)
        assert found == [(1, "model names a file of this machine, which this pool does not allow")]
    scaled = {"prompt": "x", "output": {"tif": {"scale": "/x.safetensors"}}}
    assert "output names a file" in mistakes(tmp_path, json.dumps(scaled), files=False)[0][1]
    plain = {"prompt": "x", "size": "64x64", "preset": "paper", "output": {"tif": {"scale": "lanczos"}}}
    assert mistakes(tmp_path, json.dumps(plain), files=False) == []


def test_a_manifest_may_not_be_larger_than_the_limit(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match="larger than 0 MiB"):
        read(tmp_path, "x", manifest_mib=0)


def test_an_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match=r"must end in \.jsonl, \.ndjson, \.csv"):
        read(tmp_path, "", ".odt")


def test_a_missing_file_is_reported_as_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="does not exist"):
        read_manifest(tmp_path / "none.jsonl", Limits())


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(BadManifest, match="not UTF-8"):
        read_manifest(path, Limits())


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("- &a {prompt: x}\n- *a\n", 2, "aliases are not supported"),
        ("prompt: x\n", 1, "top level must be a list"),
        ("- {prompt: x\n", 2, "not valid YAML"),
        ("- prompt: x\n  prompt: y\n", 1, "given twice"),
        ("- prompt: fine\n- just text\n", 2, "must be `key: value`"),
        ("- prompt: !!python/object:os.system x\n", 1, "could not determine a constructor"),
        ("- {prompt: x, seed: 0x" + "f" * 9000 + "}", 1, "digits"),
        ("[" * 3000, 1, "nested too deeply"),
    ],
)
def test_yaml_is_read_without_its_surprises(tmp_path: Path, text: str, line: int, message: str) -> None:
    found = mistakes(tmp_path, text, ".yaml")
    assert found[0][0] == line
    assert message in found[0][1]


def test_a_csv_row_is_numbered_by_the_line_it_begins_on(tmp_path: Path) -> None:
    text = 'prompt,size\n"two\nlines",64x64\nx,64\n'
    assert mistakes(tmp_path, text, ".csv")[0][0] == 4


def test_a_csv_with_too_many_cells_is_a_mistake(tmp_path: Path) -> None:
    assert "3 cells, but the header has 2" in mistakes(tmp_path, "prompt,size\nx,64x64,1\n", ".csv")[0][1]


def test_a_csv_may_name_a_paper(tmp_path: Path) -> None:
    manifest = read(tmp_path, "prompt,paper,dpi,landscape\nx,A6,50,true\n", ".csv")
    assert manifest.mistakes == []
    assert manifest.jobs[0].request.size == "291x207"


def test_an_empty_manifest_is_a_mistake(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "\n\n") == [(1, "the manifest lists no posters")]


def test_shards_share_the_jobs_without_rest_or_overlap() -> None:
    jobs = [Job(str(i), Request("x")) for i in range(7)]
    parts = [shard(jobs, f"{i}/3") for i in range(3)]
    assert sorted(job.id for part in parts for job in part) == [str(i) for i in range(7)]


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "a/b", "1/0", "/"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="INDEX/COUNT"):
        shard([], text)


def test_a_finished_poster_counts_only_as_it_was_left(tmp_path: Path) -> None:
    job = make_job(Request("x"), name="a")
    folder = JobFolder.of(tmp_path, "a")
    folder.open(job)
    folder.poster.write_bytes(b"pixels")
    assert folder.finished(job.fingerprint) is None
    folder.finish(job.fingerprint, {"seconds": 1.0})
    assert folder.finished(job.fingerprint, read_all=True) is not None
    assert folder.finished("other") is None
    folder.poster.write_bytes(b"pixelz")
    assert folder.finished(job.fingerprint) is not None
    assert folder.finished(job.fingerprint, read_all=True) is None
    folder.poster.write_bytes(b"pix")
    assert folder.finished(job.fingerprint) is None
    (folder.path / "DONE").write_text("{")
    assert folder.finished(job.fingerprint) is None


SUFFIXES = st.sampled_from([".jsonl", ".csv", ".yaml", ".txt", ".tsv"])
EXTREME = [
    10**400,
    -(10**400),
    1e308,
    "A0",
    "9" * 400 + "x2",
    {"pdf": {"dpi": 10**400}},
    {"tif": {"bits": []}},
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(EXTREME),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        "id",
        "prompt",
        "size",
        "seed",
        "count",
        "priority",
        "model",
        "preset",
        "method",
        "steps",
        "dtype",
        "paper",
        "dpi",
        "bleed",
        "landscape",
        "output",
        "native_steps",
        "rope.rule",
        "a.b.c",
    ]
)
FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def survives(folder: Path, content: bytes, suffix: str) -> None:
    """Jobs or sentences, nothing else; and every job has a safe folder."""
    path = folder / f"fuzz{suffix}"
    path.write_bytes(content)
    try:
        manifest = read_manifest(path, Limits(count=50))
    except ImaxError:
        return
    assert manifest.jobs or manifest.mistakes
    for job in manifest.jobs:
        assert JobFolder.of(folder, job.id).path.parent == folder
    for line, text in manifest.mistakes:
        assert line >= 1
        assert text


@FUZZ
@given(content=st.binary(max_size=200), suffix=SUFFIXES)
def test_any_bytes_give_jobs_or_a_sentence(tmp_path: Path, content: bytes, suffix: str) -> None:
    survives(tmp_path, content, suffix)


@FUZZ
@given(
    text=st.text(alphabet="{}[]\":,\n-&*!|>%@#' abp0\\", max_size=80),
    suffix=SUFFIXES,
)
def test_any_punctuation_gives_jobs_or_a_sentence(tmp_path: Path, text: str, suffix: str) -> None:
    survives(tmp_path, text.encode(), suffix)


@FUZZ
@given(fields=st.dictionaries(FIELDS, VALUES, max_size=6), suffix=SUFFIXES)
def test_any_values_give_jobs_or_a_sentence(tmp_path: Path, fields: dict[str, Any], suffix: str) -> None:
    line = {"prompt": "x", **fields}
    if suffix == ".yaml":
        text = yaml.safe_dump([line])
    elif suffix == ".csv":
        rows = io.StringIO()
        csv.writer(rows).writerows([list(line), list(line.values())])
        text = rows.getvalue()
    else:
        text = json.dumps(line)
    survives(tmp_path, text.encode(errors="replace"), suffix)


ALIASES = (
    "[&a [ha], " + ", ".join(f"&{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]" for i in range(9)) + "]"
)
BOMBS = {
    "lines of nothing.jsonl": ("x\n" * 1_000_000, "what follows was not read"),
    "empty objects.jsonl": ("{}\n" * 20_000, "what follows was not read"),
    "too many.jsonl": ("".join(f'{{"prompt": "{i}", "count": 99}}\n' for i in range(9_000)), "more than 400"),
    "the same.jsonl": ('{"prompt": "x", "count": 400}\n' * 200, "is that of line 1"),
    "aliases.jsonl": (json.dumps({"prompt": "x", "rope.rule": ALIASES}), "holds an alias"),
    "aliases.csv": (f'prompt,rope.rule\nx,"{ALIASES}"\n', "holds an alias"),
    "aliases.yaml": (f"- prompt: x\n  method: {ALIASES}\n", "aliases are not supported"),
    "long.yaml": ("- prompt: x\n" * 100_000, "write a long one as JSON Lines"),
    "long line.jsonl": ('{"prompt": "' + "x" * (1 << 20) + '"}', "longer than"),
    "large print.jsonl": (
        json.dumps({"prompt": "x", "output": {"tif": {"paper": "A0", "dpi": 1200}}}),
        "megapixels",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_a_sentence_and_takes_no_memory(tmp_path: Path, name: str) -> None:
    text, message = BOMBS[name]
    path = tmp_path / name
    path.write_text(text)
    tracemalloc.start()
    manifest = read_manifest(path, Limits(posters=400))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert any(message in mistake.text for mistake in manifest.mistakes)
    assert peak < 3 * len(text) + (16 << 20)


@pytest.mark.parametrize(
    "name", ["events.jsonl", "batch.sqlite", "Batch.SQLite-wal", "batch-0-of-2.lock", "index.html"]
)
def test_a_poster_cannot_take_the_place_of_a_file_of_the_batch(name: str) -> None:
    with pytest.raises(BadValue, match="is a file of the batch itself"):
        make_job(Request("x"), name=name)


def test_a_print_file_that_cannot_be_made_is_a_mistake_of_its_line(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    missing = {"prompt": "a red sun", "paper": "A6", "output": {"pdf": {"icc": str(tmp_path / "no.icc")}}}
    manifest.write_text(json.dumps({"prompt": "a red sun"}) + "\n" + json.dumps(missing) + "\n")
    (mistake,) = read_manifest(manifest, Limits()).mistakes
    assert mistake.line == 2
    assert "no.icc" in mistake.text


def test_a_line_of_many_keys_is_checked_in_linear_time(tmp_path: Path) -> None:
    """70 000 keys, the last one twice: comparing each with each takes a minute."""
    line = "{" + ",".join(f'"k{index}":1' for index in range(70_000)) + ',"k69999":2}'
    began = time.process_time()
    assert mistakes(tmp_path, line) == [(1, "field 'k69999' is given twice")]
    assert time.process_time() - began < 5.0
