"""Manifests as spreadsheets and text editors write them: each spelling gives the same posters."""

from __future__ import annotations

from pathlib import Path

import pytest

from imax_dist.errors import BadManifest
from imax_dist.jobs.manifest.read import Manifest, read_manifest
from imax_dist.jobs.manifest.table import read_cell
from imax_dist.jobs.settings import Limits

HEADER = ("id", "prompt", "seed", "rope.rule")
ROWS = (("sea", "a red sun, low", "3", "none"), ("moon", "a moon; high", "4", ""))


def table(separator: str, header: tuple[str, ...] = HEADER, line: str = "\r\n") -> str:
    rows = [separator.join(f'"{cell}"' if separator in cell else cell for cell in row) for row in ROWS]
    return line.join([separator.join(header), *rows, ""])


def read(folder: Path, name: str, content: str | bytes) -> Manifest:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_manifest(path, Limits())


def request_of(folder: Path, name: str, content: str) -> dict[str, object]:
    manifest = read(folder, name, content)
    assert manifest.mistakes == []
    return vars(manifest.jobs[0].request)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("comma.csv", table(",").encode()),
        ("semicolon with a mark.csv", b"\xef\xbb\xbf" + table(";").encode()),
        ("tab.csv", table("\t").encode()),
        ("tab.tsv", table("\t").encode()),
        ("semicolon.tsv", table(";").encode()),
        ("named comma.csv", b"sep=,\r\n" + table(",").encode()),
        ("named bar.csv", b"sep=|\r\n" + table("|").encode()),
        ("named and quoted.csv", b'"sep=;"\r\n' + table(";").encode()),
        ("utf-16.csv", table(",").encode("utf-16")),
        ("utf-16 other end.csv", b"\xfe\xff" + table(";").encode("utf-16-be")),
        ("unicode text of a spreadsheet.txt", table("\t").encode("utf-16")),
        ("utf-32.csv", table(",").encode("utf-32")),
        ("header in capitals.csv", table(",", tuple(name.upper() for name in HEADER)).encode()),
        ("header with spaces.csv", table(",", (" Id", "Prompt ", "SEED", "Rope.Rule")).encode()),
        ("empty columns at the end.csv", table(",").replace("\r\n", ",,\r\n").encode()),
        ("lines of unix.csv", table(";", line="\n").encode()),
    ],
)
def test_every_spelling_of_a_table_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    manifest = read(tmp_path, name, content)
    assert manifest.mistakes == []
    assert [(job.id, job.request.prompt, job.request.seed) for job in manifest.jobs] == [
        ("sea", "a red sun, low", 3),
        ("moon", "a moon; high", 4),
    ]
    assert [job.request.method for job in manifest.jobs] == [{"rope": {"rule": "none"}}, {}]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "7", 7),
        ("seed", "1.0", 1.0),
        ("seed", "007", 7),
        ("seed", "1,000", "1,000"),
        ("seed", "1.000", "1.000"),
        ("seed", "9" * 40, "9" * 40),
        ("count", "2,0", 2.0),
        ("priority", "-3", -3),
        ("steps", "1E+01", 10.0),
        ("dpi", "72,5", 72.5),
        ("dpi", "72.5", 72.5),
        ("dpi", "72,500", "72,500"),
        ("dpi", "fine", "fine"),
        ("landscape", "1", True),
        ("landscape", "0", False),
        ("landscape", "YES", True),
        ("landscape", "no", False),
        ("landscape", "TRUE", True),
        ("landscape", "maybe", "maybe"),
        ("lora_partial", "yes", True),
        ("guidance.weight", "0,5", "0.5"),
        ("rope.rule", "none", "none"),
        ("prompt", "1,5", "1,5"),
        ("prompt", "yes", "yes"),
        ("bleed", "3mm", "3mm"),
    ],
)
def test_a_cell_is_what_its_field_holds(name: str, text: str, value: object) -> None:
    found = read_cell(name, text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("header", "row", "field", "value"),
    [
        ("prompt;seed", "x;1,0", "seed", 1),
        ("prompt;steps", "x;1E+01", "steps", 10),
        ("prompt;paper;dpi", "x;A6;72,5", "dpi", 72.5),
        ("prompt;paper;dpi;landscape", "x;A6;50;1", "size", "291x207"),
        ("prompt;paper;dpi;landscape", "x;A6;50;no", "size", "207x291"),
        ("prompt;lora", "x;a.safetensors:0.8", "lora", ("a.safetensors:0.8",)),
        ("prompt;lora", "x;a.safetensors:0,8", "lora", ("a.safetensors:0.8",)),
        ("prompt;lora", "x;a.safetensors b c.safetensors:2", "lora", ("a.safetensors", "b c.safetensors:2")),
        ("prompt;lora", "x;styles/a styles/b:0.5", "lora", ("styles/a", "styles/b:0.5")),
    ],
)
def test_a_request_from_cells(tmp_path: Path, header: str, row: str, field: str, value: object) -> None:
    assert request_of(tmp_path, "m.csv", f"{header}\n{row}\n")[field] == value


@pytest.mark.parametrize("name", ["m.jsonl", "m.ndjson"])
def test_lines_of_json_take_the_same_numbers_and_one_lora(tmp_path: Path, name: str) -> None:
    made = request_of(tmp_path, name, '{"prompt": "x", "seed": 2.0, "lora": "a.safetensors:0.8"}')
    assert (made["seed"], made["lora"]) == (2, ("a.safetensors:0.8",))


def test_a_text_file_holds_a_prompt_a_line(tmp_path: Path) -> None:
    manifest = read(tmp_path, "prompts.txt", "\ufeffa red sun, low\r\n\r\n# later\r\n  a moon \n")
    assert [job.request.prompt for job in manifest.jobs] == ["a red sun, low", "a moon"]
    again = read(tmp_path, "again.txt", "a red sun\n\na red sun\n")
    assert again.mistakes[0].line == 3
    assert "that of line 1" in again.mistakes[0].text


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("prompt;seed\nx;1;2\n", 2, "3 cells, but the header has 2"),
        ("prompt;;seed\nx;y;2\n", 2, "cell 2 holds 'y', but the header names no field there"),
        ("sep=;\nprompt;seed\nx;one\n", 3, "seed must be a whole number, got 'one'"),
        ("prompt;Prompt\nx;y\n", 1, "names a field twice"),
        ("Prompt;Siez\nx;64x64\n", 2, "did you mean 'size'"),
        ("prompt,seed\nx,1.5\n", 2, "seed must be a whole number, got 1.5"),
        ('prompt,seed\nx,"1,000"\n', 2, "seed must be a whole number, got '1,000'"),
        ("prompt,seed\nx,9007199254740994.0\n", 2, "seed must be a whole number"),
        ("prompt,landscape\nx,maybe\n", 2, "landscape must be true or false"),
        ('sep="\nprompt"seed\nx"1\n', 1, "separates no cells"),
        ("id,prompt\nSea,x\nsea,y\n", 3, "id 'sea' differs from that of line 2 by case alone"),
    ],
)
def test_what_is_wrong_in_a_table_has_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    (mistake,) = read(tmp_path, "m.csv", text).mistakes
    assert mistake.line == line
    assert message in mistake.text


def test_a_field_in_capitals_is_recognised_where_names_are_exact(tmp_path: Path) -> None:
    (mistake,) = read(tmp_path, "m.jsonl", '{"prompt": "x", "ID": "a"}').mistakes
    assert "did you mean 'id'" in mistake.text


def test_an_old_encoding_is_answered_with_what_to_do(tmp_path: Path) -> None:
    content = "prompt\na house\nKüste\n".encode("cp1252")
    with pytest.raises(BadManifest, match=r'not UTF-8 text \(line 3, byte 16\).*"CSV UTF-8"'):
        read(tmp_path, "m.csv", content)
    with pytest.raises(BadManifest, match="not UTF-16 text"):
        read(tmp_path, "odd.csv", "prompt\nx\n".encode("utf-16") + b"x")
