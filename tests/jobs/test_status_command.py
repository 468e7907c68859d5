"""``imax status`` and friends, as a farm operator polls them: light, and of the right folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from imax_dist.cli.main import main
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.state import Failed, Queued
from imax_dist.jobs.store import Store
from imax_dist.jobs.store.files import store_path
from imax_dist.pipeline.request import Request


@pytest.fixture
def out(tmp_path: Path) -> Path:
    store = Store(store_path(tmp_path))
    store.add(
        [
            (make_job(Request("a"), name="a"), Queued()),
            (make_job(Request("b"), name="b"), Failed("x", "y", 1)),
        ]
    )
    store.close()
    return tmp_path


@pytest.mark.parametrize("verb", ["status", "cancel", "retry", "approve"])
def test_no_torch_is_imported_and_little_time_is_spent(out: Path, verb: str) -> None:
    """It was 3.7 s and 230 MB for two lines."""
    code = (
        "import resource, sys, imax_dist.cli.main as cli\n"
        f"code = cli.main({[verb, str(out), *(['a'] if verb == 'cancel' else [])]!r})\n"
        "heavy = {'torch', 'numpy', 'PIL', 'ray'} & set(sys.modules)\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "peak = next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(code, sorted(heavy), used.ru_utime + used.ru_stime, peak, file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    ended_with, heavy, seconds, kilobytes = ended.stderr.split()
    assert (ended_with, heavy) == ("76" if verb == "status" else "0", "[]")
    assert float(seconds) < 1.0, "0.3 s on an idle core"
    assert int(kilobytes) < 60_000


def test_a_mistyped_folder_is_no_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "--out", str(tmp_path / "typo")]) == 66
    assert f"{tmp_path / 'typo'} holds no batch" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_a_folder_of_shards_is_no_whole_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store(store_path(tmp_path, "0/2")).close()
    assert main(["batch", "--out", str(tmp_path)]) == 66
    assert "holds a batch, but only shards" in capsys.readouterr().err


def test_the_three_verbs_say_what_they_did(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", str(out), "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ["a"]
    assert main(["retry", str(out)]) == 0
    assert capsys.readouterr().out == "queued again: a, b\n"
    assert main(["approve", str(out)]) == 0
    assert capsys.readouterr().out == "approved: none\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], ["a", "b"]),
        (["--failed"], ["b"]),
        (["--state", "queued"], ["a"]),
        (["--state", "queued", "--state", "failed"], ["a", "b"]),
        (["--state", "done"], []),
    ],
)
def test_status_lists_the_states_that_are_wanted_and_counts_all(
    out: Path, capsys: pytest.CaptureFixture[str], options: list[str], shown: list[str]
) -> None:
    assert main(["status", str(out), *options, "--json"]) == 76
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"queued": 1, "failed": 1}
    assert [row["id"] for row in found["jobs"]] == shown
    assert main(["status", str(out), *options]) == 76
    assert capsys.readouterr().out.splitlines()[-1] == "1 failed, 1 queued"


def test_totals_list_no_poster(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(out), "--totals"]) == 76
    assert capsys.readouterr().out == "1 failed, 1 queued\n"
    assert main(["status", str(out), "--totals", "--json"]) == 76
    assert json.loads(capsys.readouterr().out) == {"counts": {"failed": 1, "queued": 1}}


def test_ids_are_found_however_their_accents_were_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(store_path(tmp_path))
    store.add([(make_job(Request("a"), name="K\u00fcste"), Queued())])
    store.close()
    assert main(["cancel", str(tmp_path), "Ku\u0308ste"]) == 0
    assert capsys.readouterr().out == "cancelled: K\u00fcste\n"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """250 posters, of which one has failed."""
    store = Store(store_path(tmp_path))
    jobs = [make_job(Request("a"), name=f"p-{i:03}", position=i) for i in range(250)]
    store.add((job, Failed("x", "why", 1) if job.position == 99 else Queued()) for job in jobs)
    store.close()
    return tmp_path


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], ["p-099"]),
        (["--failed"], ["p-099"]),
        (["--state", "queued", "--limit", "2"], ["p-000", "p-001"]),
        (["--limit", "3"], ["p-000", "p-001", "p-002"]),
        (["--state", "done"], []),
    ],
)
def test_of_many_posters_the_totals_and_those_named_are_shown(
    many: Path, options: list[str], shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(many), *options]) == 76
    _, *rows, note, totals = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == shown
    assert note == f"{len(shown)} of 250 posters shown; --state and --limit choose others"
    assert totals == "1 failed, 249 queued"


def test_all_of_many_posters_are_there_for_those_who_ask(
    many: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(many), "--limit", "0"]) == 76
    assert len(capsys.readouterr().out.splitlines()) == 252
    assert main(["status", str(many), "--json"]) == 76
    assert len(json.loads(capsys.readouterr().out)["jobs"]) == 250


def test_a_queue_is_named_by_its_file_as_well(many: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--store", str(store_path(many))]
    assert main(["cancel", *place, "p-001"]) == 0
    assert main(["status", *place, "--state", "cancelled"]) == 76
    assert "p-001" in capsys.readouterr().out
    assert main(["status"]) == 64
    assert "name the batch: its folder, or --store" in capsys.readouterr().err
