"""What is kept, what goes, and the store copied whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres import PostgresServer
from sqlalchemy import text

from imax_dist.cli.main import main
from imax_dist.errors import BadConfig, BadManifest, BadValue, MissingInput
from imax_dist.events import BatchNote
from imax_dist.events.log import append_to, earlier, read_log
from imax_dist.jobs.job import Job, JobFolder
from imax_dist.jobs.retention import Pruned, prune
from imax_dist.jobs.settings import Keep, seconds_of
from imax_dist.jobs.state import Cancelled, Done, Failed, Queued, Running, State
from imax_dist.jobs.store import Store, Submission, Token, Tokens, open_store
from imax_dist.jobs.store.backup import back_up, restore
from imax_dist.jobs.store.files import store_path
from imax_dist.pipeline.request import Request

STATES: list[State] = [
    Done("ab", 1, 1.0, 1),
    Failed("died", "x", 1),
    Cancelled(),
    Queued(),
    Done("ab", 1, 1.0, 1),
]
JOBS = [Job(f"job-{i}", Request("x"), position=i, fingerprint="fp") for i in range(len(STATES))]
DAY = 86400.0


def filled(out: Path) -> Store:
    """Five jobs with folders; all but the last changed 40 days ago."""
    store = Store(store_path(out))
    store.add(zip(JOBS, STATES, strict=True))
    for job in JOBS:
        folder = JobFolder.of(out, job.id)
        folder.open(job)
        folder.poster.write_bytes(b"pixels")
        folder.checkpoints.mkdir()
        (folder.checkpoints / "step-000001.safetensors").write_bytes(b"x")
    with store.transaction() as connection:
        old = text("UPDATE jobs SET changed = changed - :age WHERE id != 'job-4'")
        connection.execute(old, {"age": 40 * DAY})
    return store


def test_posters_older_than_they_are_kept_are_forgotten_with_their_folders(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert prune(store, tmp_path, Keep(posters="30d")) == Pruned(3, 0, 0, [])
    assert set(store.states()) == {"job-3", "job-4"}
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["job-3", "job-4"]


def test_checkpoints_of_what_will_not_be_resumed_go_first(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert prune(store, tmp_path, Keep(checkpoints="2w")) == Pruned(0, 2, 0, [])
    left = [job.id for job in JOBS if JobFolder.of(tmp_path, job.id).checkpoints.exists()]
    assert left == ["job-0", "job-3", "job-4"], "a queued poster resumes from its own"


def test_a_folder_with_files_of_others_is_kept_and_named(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (tmp_path / "job-0" / "notes.txt").write_text("mine")
    gone = prune(store, tmp_path, Keep(posters="30d"))
    assert gone.jobs == 2
    assert "job-0 holds files of other programs" in gone.problems[0]
    assert (tmp_path / "job-0" / "notes.txt").read_text() == "mine"
    assert "job-0" in store.states()


def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    out, home = tmp_path / "out", tmp_path / "home"
    store = filled(out)
    home.mkdir()
    (home / "poster.png").write_bytes(b"mine")
    (out / "job-1").rename(tmp_path / "away")
    (out / "job-1").symlink_to(home)
    gone = prune(store, out, Keep(posters="30d", checkpoints="1d"))
    assert [problem.split(":")[0] for problem in gone.problems] == ["job-1", "job-1"]
    assert (home / "poster.png").read_bytes() == b"mine"


def test_events_of_the_store_go_by_their_age(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.cancel(["job-3"])
    with store.transaction() as connection:
        connection.execute(text("UPDATE events SET moment = moment - :age"), {"age": 40 * DAY})
    store.retry(["job-3"])
    assert prune(store, tmp_path, Keep(events="30d")).events == 1
    assert [each.event["event"] for each in store.events("job-3")] == ["job.queued"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("", None), ("12h", 43200.0), ("30d", 30 * DAY), ("2w", 14 * DAY)]
)
def test_times_are_read(text: str, seconds: float | None) -> None:
    assert seconds_of(text, where="x") == seconds


@pytest.mark.parametrize("text", ["30", "d", "-1d", "1.5d", "30 years", "9999999d"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(BadConfig, match=r"keep\.posters .* write for example 12h, 30d or 8w"):
        Keep(posters=text)


def test_prune_is_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path).close()
    assert main(["store", "prune", str(tmp_path), "--posters", "30d"]) == 0
    assert capsys.readouterr().out == "3 posters, checkpoints of 0, 0 events gone\n"
    assert main(["store", "prune", str(tmp_path)]) == 64


def test_a_long_log_is_put_aside_and_still_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    listen = append_to(path, largest=300)
    for number in range(9):
        listen(BatchNote(f"note {number}"))
    assert path.stat().st_size + earlier(path).stat().st_size < 1000
    read = [logged.event.text for logged in read_log(path)]  # type: ignore[union-attr]
    assert read == [f"note {number}" for number in range(9 - len(read), 9)]
    assert len(read) >= 4


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """A store of either kind, in which nothing is yet."""
    if request.param == "sqlite":
        return lambda: open_store(tmp_path / "elsewhere" / "batch.sqlite")
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.new_database()
    return lambda: open_store(url)


def test_a_backup_brings_everything_back_in_either_kind(tmp_path: Path, other: Callable[[], Store]) -> None:
    store, file = filled(tmp_path), tmp_path / "safe" / "backup.sqlite"
    store.join("a driver")
    store.claim(["job-3"], "gang-0")
    store.submit(Submission(Job("sub", Request("x")), owner="me", key="k", webhook="https://example.com"))
    Tokens(store.database).add(Token("me", "hash", "submit", {"jobs": 1}))
    assert back_up(store.database, file) == 6
    assert [path.name for path in file.parent.iterdir()] == ["backup.sqlite"]
    again = other()
    assert restore(file, again.database) == 6
    assert again.states() == store.states()
    assert isinstance(again.states()["job-3"], Running)
    assert again.by_key("me", "k") is not None
    assert [each.event for each in again.events("job-3")] == [each.event for each in store.events("job-3")]
    assert Tokens(again.database).find("hash") is not None
    again.recover()
    assert again.states()["job-3"] == Queued(attempts=1, after="the batch was interrupted")
    row, _ = again.submit(Submission(Job("next", Request("x"))))
    assert row.number == 7, "numbers go on where they were"
    with pytest.raises(BadValue, match="holds 7 jobs; a backup is put into an empty store only"):
        restore(file, again.database)
    again.close()


def test_a_backup_goes_over_no_file_and_a_restore_needs_one(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (tmp_path / "there").write_text("mine")
    with pytest.raises(BadValue, match="exists; name another file"):
        back_up(store.database, tmp_path / "there")
    with pytest.raises(MissingInput, match="does not exist"):
        restore(tmp_path / "nothing", store.database)
    with pytest.raises(BadManifest, match="not an imax batch database"):
        restore(tmp_path / "there", Store(tmp_path / "new" / "batch.sqlite").database)
    assert (tmp_path / "there").read_text() == "mine"


def test_backup_and_restore_are_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "out").close()
    assert main(["store", "backup", str(tmp_path / "b.sqlite"), str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"jobs": 5}
    assert main(["store", "restore", str(tmp_path / "b.sqlite"), str(tmp_path / "new")]) == 0
    assert "batch.sqlite: 5 posters" in capsys.readouterr().out
    assert main(["status", str(tmp_path / "new"), "--json"]) == 76
    assert json.loads(capsys.readouterr().out)["counts"] == {
        "cancelled": 1,
        "done": 2,
        "failed": 1,
        "queued": 1,
    }
