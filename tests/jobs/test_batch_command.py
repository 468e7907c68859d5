"""The command itself, as a print shop runs it: interrupted, killed, run again, asked about."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from tiny_flux import make_tiny_flux

from imax_dist.cli.main import main
from imax_dist.errors import ClusterUnavailable

HARD_LIMIT_S = 200
STEPS = 400
POSTER = {"prompt": "a red sun over the sea", "size": "144x112", "preset": "one_jump", "steps": STEPS}
"""Of a tiny network, with a checkpoint every five steps of 6 ms: seconds of work, in which a signal falls."""


class Command:
    """``imax batch`` as a process of its own session, so that all of it can be found and ended.

    It is started in a folder whose files have names of the standard library, which nothing may import.
    """

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        for name in ("grp", "random", "statistics", "calendar"):
            (folder / f"{name}.py").write_text("raise SystemExit('a file of the current folder was run')")
        self.out = folder / "out"
        self.manifest = folder / "manifest.jsonl"
        lines = [{"id": name, **POSTER, "model": str(model)} for name in ("one", "two", "three")]
        self.manifest.write_text("\n".join(map(json.dumps, lines)))
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *options: str) -> subprocess.Popen[str]:
        python = [sys.executable, "-P", "-m", "imax_dist"]
        command = [*python, "batch", str(self.manifest), "--out", str(self.out)]
        process = subprocess.Popen(
            [*command, "--gangs", "1", "--ranks", "1", "--json", *options],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.processes.append(process)
        return process

    def wait_for(self, text: str, *, count: int = 1, files: str = "*/events.jsonl") -> None:
        """Until the events of the jobs hold ``text`` that often."""
        deadline = time.monotonic() + HARD_LIMIT_S
        while time.monotonic() < deadline:
            if self.count(text, files) >= count:
                return
            if all(process.poll() is not None for process in self.processes):
                raise AssertionError(f"the batch has ended: {self.processes[-1].communicate()[1]}")
            time.sleep(0.02)
        raise TimeoutError(f"{text} was not heard {count} times")

    def count(self, text: str, files: str = "*/events.jsonl") -> int:
        return sum(path.read_text().count(text) for path in self.out.glob(files))

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)

    def events(self, name: str) -> list[dict[str, Any]]:
        found = map(json.loads, (self.out / "events.jsonl").read_text().splitlines())
        return [event for event in found if event["event"] == name]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def command(tmp_path: Path, tiny: Path) -> Iterator[Command]:
    command = Command(tmp_path, tiny)
    yield command
    command.end()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Command]:
    """One batch for several tests: each goes on with what the one before has left."""
    command = Command(tmp_path_factory.mktemp("begun"), tiny)
    yield command
    command.end()


def alive(session: int) -> list[int]:
    """Processes of a session that are no zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_for_ray(session: int) -> None:
    """Until Ray's first server runs in that session: ``ray.init`` has begun and has not returned."""
    deadline = time.monotonic() + HARD_LIMIT_S
    while time.monotonic() < deadline:
        for pid in alive(session):
            with suppress(OSError):
                if "gcs_server" in Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]:
                    return
        time.sleep(0.02)
    raise TimeoutError("Ray was not started")


def wait_until_gone(session: int) -> list[int]:
    deadline = time.monotonic() + 15
    while (left := alive(session)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


@pytest.mark.slow
@pytest.mark.machines
@pytest.mark.timeout(300)
def test_a_sigterm_to_the_whole_group_ends_in_seconds_and_ray_was_private(begun: Command) -> None:
    """As systemd, timeout and supervisors send it: Ray died of it, and the driver after 60 s, with 1."""
    process = begun.start("--alive", str(begun.folder / "alive"))
    begun.wait_for(f'"index": 2, "steps": {STEPS}', count=2)
    family = psutil.Process(process.pid).children(recursive=True)
    raylet = next(child for child in family if child.name() == "raylet")
    places = [Path(part) for word in raylet.cmdline() for part in word.split("=") if "/session_" in part]
    private = next(parent for parent in places[0].parents if parent.name.startswith("imax-"))
    assert private.stat().st_mode & 0o777 == 0o700
    listening = {
        connection.laddr.ip: child.name()
        for child in family
        if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
        for connection in child.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening
    ranks = [pid for event in begun.events("gang.ready") for pid in event["pids"]]
    assert (begun.folder / "alive").exists(), "for a probe from outside"
    assert {psutil.Process(pid).nice() for pid in ranks} == {psutil.Process(process.pid).nice()}
    os.killpg(process.pid, signal.SIGTERM)
    began = time.monotonic()
    _, message = process.communicate(timeout=HARD_LIMIT_S)
    assert process.returncode == 75, message
    assert "2 queued, 1 done" in message
    assert "run the same command again to resume" in message
    assert time.monotonic() - began < 30, "a step of a small poster, its checkpoint, and Ray's end"
    assert wait_until_gone(process.pid) == []
    assert not private.exists()


def test_a_local_ray_without_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from imax_dist.errors import BadValue
    from imax_dist.jobs import cluster

    monkeypatch.setattr(cluster, "get_authentication_mode", lambda: cluster.AuthenticationMode.DISABLED)
    with pytest.raises(BadValue, match="RAY_AUTH_MODE turns Ray's tokens off"):
        cluster._require_tokens()


@pytest.mark.slow
@pytest.mark.machines
@pytest.mark.timeout(300)
def test_a_stopped_batch_goes_on_and_killed_it_leaves_no_process(begun: Command) -> None:
    """The batch that SIGTERM stopped is run again and killed after its next poster."""
    done, written = begun.count('"event": "job.done"'), '"event": "checkpoint"'
    killed = begun.start()
    begun.wait_for('"event": "job.done"', count=done + 1)
    begun.wait_for(written, count=begun.count(written) + 2)
    killed.kill()
    killed.communicate(timeout=HARD_LIMIT_S)
    assert wait_until_gone(killed.pid) == []
    assert begun.count('"event": "job.done"') == done + 1, "there must be a poster left to make"


@pytest.mark.slow
@pytest.mark.machines
@pytest.mark.timeout(300)
def test_a_killed_batch_goes_on_in_one_process_and_nothing_is_rendered_twice(begun: Command) -> None:
    """The batch that was killed is run to its end; a second process is refused meanwhile."""
    starts = begun.count('"event": "batch.started"', "events.jsonl")
    again = begun.start()
    begun.wait_for('"event": "batch.started"', count=starts + 1, files="events.jsonl")
    os.kill(again.pid, signal.SIGSTOP)  # or it may be done before the other one has imported its libraries
    refused = begun.start()
    _, message = refused.communicate(timeout=HARD_LIMIT_S)
    os.kill(again.pid, signal.SIGCONT)
    assert refused.returncode == 75
    assert f"is being filled by process {again.pid}" in message
    finishes(begun, again)


def finishes(command: Command, last: subprocess.Popen[str]) -> None:
    """The run makes what is missing, and nothing a second time."""
    output, message = last.communicate(timeout=HARD_LIMIT_S)
    assert last.returncode == 0, message
    assert json.loads(output)["counts"] == {"done": 3}
    hashes = {json.loads(path.read_text())["latents_sha256"] for path in command.out.glob("*/DONE")}
    assert len(hashes) == 1, "the same request, however often it was interrupted"
    rendered = [event["job"] for event in command.events("job.done")]
    assert len(rendered) == len(set(rendered)), "none was made twice"
    assert wait_until_gone(last.pid) == []
    assert main(["status", str(command.out), "--verify"]) == 0


@pytest.mark.slow
@pytest.mark.machines
def test_a_second_signal_ends_a_batch_at_once_and_nothing_is_running_then(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    hurried = command.start()
    command.wait_for('"event": "job.started"')
    hurried.terminate()
    command.wait_for('"event": "batch.stopping"', files="events.jsonl")
    hurried.terminate()
    _, message = hurried.communicate(timeout=HARD_LIMIT_S)
    assert hurried.returncode == 128 + signal.SIGTERM, message
    assert wait_until_gone(hurried.pid) == []
    assert main(["status", str(command.out)]) == 0
    assert "queued     " in capsys.readouterr().out, "not running: nobody works on it"


@pytest.mark.slow
@pytest.mark.machines
def test_a_batch_stopped_while_ray_starts_is_resumable_too(command: Command) -> None:
    early = command.start()
    command.wait_for('"event": "batch.started"', files="events.jsonl")
    wait_for_ray(early.pid)
    early.terminate()
    output, message = early.communicate(timeout=HARD_LIMIT_S)
    assert early.returncode == 75, message
    assert output == ""
    assert wait_until_gone(early.pid) == []


def test_a_batch_with_nothing_to_do_starts_no_ray(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from imax_dist.jobs import batch as jobs_batch
    from imax_dist.jobs.state import Cancelled, Failed
    from imax_dist.jobs.store import Store

    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"id": "a", "prompt": "x"}\n')
    out = tmp_path / "out"

    def no_ray(address: str, settings: object, **_: object) -> None:
        raise ClusterUnavailable("Ray was started")

    monkeypatch.setattr(jobs_batch, "ray_cluster", no_ray)
    assert main(["batch", str(manifest), "--out", str(out), "-q"]) == 69
    store = Store(out / "batch.sqlite")
    store.move("a", Cancelled())
    store.close()
    assert main(["batch", str(manifest), "--out", str(out), "-q"]) == 0
    assert "1 cancelled" in capsys.readouterr().out
    store = Store(out / "batch.sqlite")
    store.move("a", Failed("BadValue", "no such size", attempts=1))
    store.close()
    assert main(["batch", str(manifest), "--out", str(out), "-q"]) == 76
    assert "no such size" in capsys.readouterr().out


def test_the_file_of_alive_is_touched_as_the_loop_turns_and_while_it_waits_for_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imax_dist.jobs import batch as jobs_batch

    manifest, alive = tmp_path / "m.jsonl", tmp_path / "alive"
    manifest.write_text('{"id": "a", "prompt": "x"}\n')
    turned: list[bool] = []

    class TurningPool:
        def __init__(self, board: Any, *_: object, deps: Any, **named: object) -> None:
            self.board, self.deps = board, deps

        def run(self) -> None:
            for act in (self.deps.check, lambda: self.board.sleep(0.0)):
                assert not alive.exists()
                act()
                alive.unlink()
                turned.append(True)

    monkeypatch.setattr(jobs_batch, "ray_cluster", lambda *_, **__: nullcontext())
    monkeypatch.setattr(jobs_batch, "ray_hosts", list)
    monkeypatch.setattr(jobs_batch, "Pool", TurningPool)
    words = ["batch", str(manifest), "--out", str(tmp_path / "out"), "--alive", str(alive), "-q"]
    main([*words, "--gangs", "1", "--ranks", "1", "--device", "cpu"])
    assert turned == [True, True]


def test_a_read_only_disk_is_reported_before_anything_starts(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"id": "a", "prompt": "x"}\n')
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert main(["batch", str(manifest), "--out", str(small_disk / "out"), "-q"]) == 73
    assert "Read-only file system" in capsys.readouterr().err


def test_check_lists_every_mistake_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"prompt": "x"}\nnonsense\n{"prompt": "y", "siez": "1x1"}\n')
    assert main(["batch", str(manifest), "--out", str(tmp_path / "out"), "--check"]) == 65
    error = capsys.readouterr().err
    assert "line 2: not valid JSON" in error
    assert "line 3: unknown field 'siez'; did you mean 'size'?" in error
    assert not (tmp_path / "out").exists()


def test_check_names_models_plans_and_files_that_cannot_be_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with its line, a line once, and what the lines themselves get wrong beside it."""
    wide = tmp_path / "wide.png"
    Image.new("RGB", (128, 64)).save(wide)
    lines: list[dict[str, object]] = [
        {"prompt": "a"},
        {"prompt": "b", "guide": "nothere.png", "count": 2},
        {"prompt": "c", "model": "black-forest-labs/FLUX.9"},
        {"prompt": "d", "lora": ["nothere.safetensors:0.5"]},
        {"prompt": "e", "guide": str(wide), "size": "256x256", "fit": "exact"},
        {"prompt": "f", "siez": "1x1"},
        {"prompt": "g", "guide": str(wide), "preset": "direct"},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["batch", str(manifest), "--out", str(tmp_path / "out"), "--check"]) == 65
    head, *said = capsys.readouterr().err.splitlines()
    assert "6 mistakes" in head
    expected = [
        "line 2: guide nothere.png does not exist",
        "line 3: model black-forest-labs/FLUX.9 is not on this disk",
        "line 4: lora nothere.safetensors does not exist",
        f"line 5: guide {wide}: the picture is 128x64, but the poster 256x256, and fit is exact",
        "line 6: unknown field 'siez'",
        f"line 7: guide {wide} cannot guide: the recipe of preset direct uses no native picture",
    ]
    assert [text.strip()[: len(start)] for text, start in zip(said, expected, strict=True)] == expected
    assert not (tmp_path / "out").exists()


def test_check_of_a_sound_manifest_says_what_it_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"prompt": "x", "count": 3, "size": "64x64"}\n')
    assert main(["batch", str(manifest), "--out", str(tmp_path / "out"), "--check", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["posters"] == 3
    assert said["plan"].startswith("planned: ")
    grid = ["--grid", "seed=1..3", "steps=1,2"]
    assert main(["batch", str(manifest), "--out", str(tmp_path / "out"), "--check", "--json", *grid]) == 0
    assert json.loads(capsys.readouterr().out)["posters"] == 18


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["batch", "missing.jsonl", "--out", "o"], 66, "does not exist"),
        (["batch", "--out", "o", "--check"], 64, "--check needs a manifest"),
        (["batch", "--out", "o", "--vae", "v"], 64, "--vae and --encoder are for the lines of a manifest"),
        (["batch", "m.jsonl", "--out", "o", "--pool", "nosuch"], 78, "pool 'nosuch' is not known"),
        (["batch", "m.jsonl", "--out", "o", "--pool", "no.yaml"], 66, "pool file no.yaml does not exist"),
        (["batch", "m.jsonl", "--out", "o", "--shard", "4/4"], 64, "not INDEX/COUNT"),
        (["batch", "m.jsonl", "--out", "o", "--ranks", "0"], 78, "ranks 0 must be at least 1"),
        (["batch", "m.jsonl", "--out", "o", "--ray", "127.0.0.1:9"], 69, "no Ray cluster answers"),
        (["batch", "m.jsonl", "--out", "file"], 73, "is a file, and a folder is needed there"),
        (["batch", ".", "--out", "o"], 65, "must end in .jsonl"),
        (["batch", "d.jsonl", "--out", "o"], 66, "manifest d.jsonl is a folder"),
        (["batch", "m.jsonl", "--out", "file", "--check"], 73, "is a file, and a folder is needed there"),
        (["batch", "m.jsonl", "--out", "o", "--check", "--grid", "seed="], 64, "is not NAME=VALUES"),
        (["batch", "m.jsonl", "--out", "o", "--check", "--grid", "size=64x64,1x1"], 64, "between 16 and"),
        (["batch", "m.jsonl", "--out", "o", "--check", "--deliver", "ftp://x/y"], 78, "is not a bucket"),
        (
            ["batch", "m.jsonl", "--out", "o", "--check", "--store", "mysql://x"],
            64,
            "is not a supported queue",
        ),
        (["status", "o"], 66, "holds no batch"),
        (["retry", "o"], 66, "holds no batch"),
    ],
)
def test_a_mistake_is_one_sentence_and_its_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.jsonl").write_text('{"prompt": "x"}\n')
    Path("file").write_text("")
    Path("d.jsonl").mkdir()
    assert main(arguments) == code
    assert not Path("o").exists() or "--check" not in arguments
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]


AFTER_RAY = """
import ray
from imax_dist.errors import ClusterUnavailable
from imax_dist.jobs.gang import destroy_ranks
from imax_dist.jobs.ray_gangs import RayGangs
from imax_dist.jobs.settings import PoolSettings
try:
    RayGangs(PoolSettings())("gang-0", 1)
except ClusterUnavailable as error:
    print(error)
destroy_ranks([object()], object())
print(ray.is_initialized())
"""


def test_a_gang_that_is_built_too_late_starts_no_other_ray() -> None:
    """Every call of Ray's would: it starts a cluster of its own where none is joined."""
    command = [sys.executable, "-c", AFTER_RAY]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)
    assert done.stdout.splitlines() == ["gang-0: Ray has ended", "False"], done.stderr
