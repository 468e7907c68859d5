"""Real gangs on a real Ray: the same pictures as one process, also after a rank was killed or stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from disks import DyingDisk
from faulty_rank import FaultyRank, MisfitRank, RankElsewhere
from processes import lives
from thread_gang import ThreadGang
from tiny_flux import make_tiny_flux

from imax_dist.errors import BadConfig, CannotWrite, ClusterUnavailable
from imax_dist.events import (
    CheckpointWritten,
    GangBroken,
    GangReady,
    InJob,
    Note,
    PoolEvent,
    StepDone,
    both,
)
from imax_dist.events.log import as_json
from imax_dist.jobs import batch as jobs_batch
from imax_dist.jobs.batch import Batch, run_batch
from imax_dist.jobs.board import Board
from imax_dist.jobs.cluster import draining_nodes, living_nodes
from imax_dist.jobs.control import approve
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.metrics import PoolMetrics
from imax_dist.jobs.pool import Pool
from imax_dist.jobs.pool_deps import PoolDeps
from imax_dist.jobs.rank import Rank
from imax_dist.jobs.ray_gangs import RayGangs
from imax_dist.jobs.settings import Deadlines, PoolSettings, Retry
from imax_dist.jobs.state import Done, Failed, Proofed, Queued
from imax_dist.jobs.store import Store
from imax_dist.output.image.bands import bands_of_array
from imax_dist.output.image.labels import hash_of
from imax_dist.output.image.pixels import to_eight_bit
from imax_dist.output.image.png import read_pixels
from imax_dist.output.image.verify import verify
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request

pytestmark = [pytest.mark.slow, pytest.mark.machines, pytest.mark.timeout(400)]

Hook = Callable[[PoolEvent], None]
LIMITS = Deadlines(
    place=200, join=200, first_step=120, step_least=30, stage=120, heartbeat=8, exchange=8, grace=1, stop=60
)
"""Far above what a busy machine needs; only ``heartbeat`` is waited for."""
SEEN_S = 20.0
"""Within which a loss is noticed, beyond the heartbeat of a rank that only stands still."""
OWN_TAGS = ("state", "reason", "gang", "stage", "rank", "le")
SEA = Request("a red sun over the sea", size="144x112", preset="one_jump", steps=10, native_steps=3)
"""Of which model, the fixture ``sea`` says."""


def settings(**changes: Any) -> PoolSettings:
    base: dict[str, Any] = {
        "ranks": 2,
        "device": "cpu",
        "threads": 1,
        "checkpoint_every": 2,
        "deadlines": LIMITS,
        "retry": Retry(attempts=3, backoff=0.2, disk_full=1.0),
    }
    return PoolSettings(**{**base, **changes})


class Run:
    """One pool run in ``out``; ``hook`` sees every event and the current ranks' process ids."""

    def __init__(self, out: Path, requests: dict[str, Request], *, hook: Hook | None = None) -> None:
        self.out = out
        self.pids: list[int] = []
        self.events: list[dict[str, Any]] = []
        self._hook = hook
        self.store = Store(out / "batch.sqlite")
        jobs = enumerate(requests.items())
        self.store.add((make_job(r, name=name, position=i), Queued()) for i, (name, r) in jobs)

    def __call__(
        self, *, rank_class: type[Rank] = Rank, proofs_only: bool = False, **changes: Any
    ) -> dict[str, Any]:
        chosen = settings(**changes)
        board = Board(self.store)
        pool = Pool(
            board,
            RayGangs(chosen, rank_class),
            chosen,
            out=self.out,
            proofs_only=proofs_only,
            deps=PoolDeps(listen=both(PoolMetrics(board), self._hear)),
        )
        pool.run()
        return {row.job.id: row.state for row in self.store.rows()}

    def _hear(self, event: PoolEvent) -> None:
        self.events.append(as_json(event))
        if isinstance(event, GangReady):
            self.pids += event.pids
        if self._hook is not None:
            self._hook(event)

    def done(self, job_id: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.out / job_id / "DONE").read_text())
        return record

    def heard(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """Events of that name with those fields."""
        named = [heard for heard in self.events if heard["event"] == name]
        return [heard for heard in named if fields.items() <= heard.items()]

    def left_alive(self) -> list[int]:
        """Ranks that live on 10 s after the pool has ended."""
        deadline = time.monotonic() + 10
        while (alive := [pid for pid in self.pids if lives(pid)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return alive


class Storm:
    """Does one harm to each job that is named after it, when it has made five steps at its target size."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.harmed: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        self._pids: tuple[int, ...] = ()
        self._harms = {
            "stopped": lambda: os.kill(self._pids[1], signal.SIGSTOP),
            "torn": self._tear,
        }

    def __call__(self, event: PoolEvent) -> None:
        match event:
            case GangReady():
                self._pids = event.pids
            case GangBroken() if len(self.seen) < len(self.harmed):
                self.seen[list(self.harmed)[-1]] = time.monotonic()
            case InJob(job, StepDone("extrapolated", 5)):
                harm = self._harms.pop(job, None)
                if harm is not None:
                    self.harmed[job] = time.monotonic()
                    harm()

    def _tear(self) -> None:
        newest = max((self.out / "torn" / "checkpoints").glob("step-1*.safetensors"))
        newest.write_bytes(newest.read_bytes()[:1000])
        os.kill(self._pids[0], signal.SIGKILL)


@pytest.fixture(scope="module")
def sea(tmp_path_factory: pytest.TempPathFactory) -> Request:
    """A small poster of a tiny network: ranks cost their start, not their steps."""
    return replace(SEA, model=str(make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model")))


Harmed = tuple[Run, Storm, dict[str, Any]]
HARMED = [("storm", "stopped"), ("faults", "torn")]
"""The fixture that a harmed poster is of."""


@pytest.fixture(scope="module")
def storm(small_ray: None, sea: Request, tmp_path_factory: pytest.TempPathFactory) -> Harmed:
    """The same poster under several names, one of them with a rank that stops."""
    out = tmp_path_factory.mktemp("storm")
    harm = Storm(out)
    requests = {name: sea for name in ["calm", "bad", "unloaded", "stopped"]} | {
        "bad": Request("x", model="nosuchmodel"),
        "unloaded": replace(sea, dtype="float64"),
    }
    run = Run(out, requests, hook=harm)
    with scraping() as SCRAPED[run]:
        return run, harm, run(rank_class=FaultyRank)


SCRAPED: dict[Run, dict[str, float]] = {}
"""What Prometheus would have seen while a pool ran: a gauge is in one scrape after each time it was set."""


@contextmanager
def scraping() -> Iterator[dict[str, float]]:
    found: dict[str, float] = {}
    port, ended = ray.nodes()[0]["MetricsExportPort"], threading.Event()

    def scrape() -> None:
        while not ended.wait(1.0):
            with suppress(OSError):
                found.update({name: value for name, value in exported(port).items() if value})

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def faults(small_ray: None, sea: Request, tmp_path_factory: pytest.TempPathFactory) -> Harmed:
    """The same poster: killed with a torn checkpoint, with a defect, with print files, without memory."""
    out = tmp_path_factory.mktemp("faults")
    harm = Storm(out)
    requests = {name: sea for name in ["torn", "raised", "printed", "greedy"]} | {
        "printed": replace(sea, output={"pdf": {}, "tif": {"bits": 16}}),
    }
    run = Run(out, requests, hook=harm)
    return run, harm, run(rank_class=FaultyRank)


def test_prometheus_gets_every_metric(storm: Harmed) -> None:
    """Before ``faults``, whose numbers would be added."""
    port = ray.nodes()[0]["MetricsExportPort"]
    wanted = {
        'imax_jobs_total{state="done"}': 2.0,
        'imax_jobs_total{state="failed"}': 2.0,
        'imax_gang_restarts_total{reason="hung"}': 1.0,
        'imax_queue_depth{state="done"}': 2.0,
        'imax_gangs{state="joined"}': 1.0,
        "imax_job_seconds_count": 2.0,
    }
    found = SCRAPED[storm[0]]
    deadline = time.monotonic() + 20
    while found | wanted != found and time.monotonic() < deadline:
        found |= {name: value for name, value in exported(port).items() if value}
        time.sleep(0.3)
    assert found | wanted == found
    assert found['imax_peak_memory_bytes{gang="gang-0",rank="1"}'] > 100e6
    assert found["imax_checkpoint_seconds_count"] > 6
    assert found['imax_steps_total{gang="gang-0",stage="extrapolated"}'] >= 20
    assert found['imax_step_seconds_count{gang="gang-0",stage="native"}'] >= 6


@pytest.mark.parametrize(("fixture", "name"), [*HARMED, ("faults", "raised")])
def test_misfortune_costs_an_attempt_but_no_bit(
    request: pytest.FixtureRequest, fixture: str, name: str
) -> None:
    run, _, states = request.getfixturevalue(fixture)
    calm = request.getfixturevalue("storm")[0].done("calm")
    assert isinstance(states[name], Done)
    assert states[name].attempts == 2
    assert run.done(name)["latents_sha256"] == calm["latents_sha256"]
    assert run.done(name)["pixels_sha256"] == calm["pixels_sha256"]


@pytest.mark.parametrize(("fixture", "name"), HARMED)
def test_a_lost_gang_is_seen_within_seconds(request: pytest.FixtureRequest, fixture: str, name: str) -> None:
    _, harm, _ = request.getfixturevalue(fixture)
    limit = SEEN_S + (LIMITS.heartbeat if name == "stopped" else 0)
    assert harm.seen[name] - harm.harmed[name] < limit


@pytest.mark.parametrize(("fixture", "name"), HARMED)
def test_a_poster_goes_on_from_its_last_checkpoint(
    request: pytest.FixtureRequest, fixture: str, name: str
) -> None:
    run, _, _ = request.getfixturevalue(fixture)
    steps = [fields["index"] for fields in run.heard("step", job=name, stage="extrapolated")]
    assert steps.count(1) == 1
    assert set(steps) == set(range(1, 11))


def test_a_torn_checkpoint_is_passed_over(faults: Harmed) -> None:
    run, _, _ = faults
    notes = [note["text"] for note in run.heard("note", job="torn")]
    assert any("cannot be read as a checkpoint" in text for text in notes)
    assert "resumed after step 2 of the target-size pass" in notes


def test_a_hung_rank_is_named_and_the_others_leave_their_stacks(
    storm: Harmed,
) -> None:
    run, _, _ = storm
    message = run.heard("gang.lost", reason="hung")[0]["message"]
    assert re.search(r"rank 1 \(.+, process \d+\) has not answered for .+ \(silent\)", message)
    folder = run.out / "stopped" / "hangs" / "attempt-1"
    assert "render_poster" in (folder / "rank-0.stacks.txt").read_text()
    assert json.loads((folder / "diagnosis.json").read_text())["kind"] == "silent"


def test_a_bad_value_fails_its_poster_and_keeps_the_gang(storm: Harmed) -> None:
    run, _, states = storm
    assert isinstance(states["bad"], Failed)
    assert (states["bad"].kind, states["bad"].attempts) == ("BadConfig", 1)
    assert "nosuchmodel" in states["bad"].message
    assert len(run.heard("gang.ready")) == len(run.heard("gang.lost")) + 1


def test_what_rank_0_alone_could_not_load_is_the_reason_and_keeps_the_gang(
    storm: Harmed,
) -> None:
    _, _, states = storm
    assert states["unloaded"] == Failed(
        "MissingInput", "model embedded: its text encoder is not there", attempts=1
    )


def exported(port: int) -> dict[str, float]:
    """Our series as a scraper sees them, with our own tags only."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = {}
    for name, tags, value in re.findall(r"^ray_(imax_\w+)\{(.*)\} (\S+)$", text, flags=re.MULTILINE):
        own = [tag for tag in re.findall(r'\w+="[^"]*"', tags) if tag.split("=")[0] in OWN_TAGS]
        found[name + (f"{{{','.join(own)}}}" if own else "")] = float(value)
    return found


def test_every_loss_has_its_reason(storm: Harmed, faults: Harmed) -> None:
    run, _, states = faults
    assert [fields["reason"] for fields in storm[0].heard("gang.lost")] == ["hung"]
    assert [fields["reason"] for fields in run.heard("gang.lost")] == ["died", "crashed", "out_of_memory"]
    assert "RuntimeError: planted" in run.heard("gang.lost", reason="crashed")[0]["message"]
    assert "can't allocate memory" in run.heard("gang.lost", reason="out_of_memory")[0]["message"]
    assert isinstance(states["greedy"], Failed)
    assert "it ran on 2 ranks, and most_ranks allows no more" in states["greedy"].message
    assert len(run.heard("gang.ready")) == 3, "greedy, the last, needs none after"


def test_print_files_and_the_native_picture_lie_beside_the_poster(storm: Harmed, faults: Harmed) -> None:
    run, _, _ = faults
    folder = run.out / "printed"
    assert run.done("printed")["latents_sha256"] == storm[0].done("calm")["latents_sha256"]
    recipe = json.loads((folder / "poster.recipe.json").read_text())
    assert recipe["files"].keys() == {"poster.pdf", "poster.tif"}
    for name in ("poster.png", "poster.tif", "poster.pdf"):
        assert verify(folder / name).matches, name
    height, width, _ = read_pixels(folder / "native.png").shape
    assert f"{width}x{height}" == recipe["plan"]["native_size"]


def test_no_rank_outlives_the_pool(storm: Harmed, faults: Harmed) -> None:
    assert storm[0].left_alive() == []
    assert faults[0].left_alive() == []


def test_a_poster_too_large_for_one_rank_is_made_on_two(storm: Harmed, sea: Request, tmp_path: Path) -> None:
    run = Run(tmp_path, {"large": sea})
    states = run(rank_class=FaultyRank, ranks=1, most_ranks=2)
    assert isinstance(states["large"], Done)
    assert [fields["ranks"] for fields in run.heard("gang.ready")] == [1, 2], run.heard("gang.lost")
    assert run.heard("gang.lost")[0]["reason"] == "out_of_memory"
    assert run.done("large")["latents_sha256"] == storm[0].done("calm")["latents_sha256"]


def test_ray_tells_which_nodes_go_away(small_ray: None) -> None:
    from ray._private.state import state

    assert dict(state.get_draining_nodes()) == {}, "cluster.draining_nodes would see nothing without it"
    assert draining_nodes() == frozenset()


def test_a_full_disk_ends_the_batch_and_loses_no_step(
    small_ray: None,
    sea: Request,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filler = small_disk / "filler"

    def fill() -> None:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    harmed_and_mended(sea, small_disk / "out", (fill, filler.unlink, "full"), monkeypatch)


def test_a_disk_that_turns_read_only_ends_the_batch_and_loses_no_step(
    sea: Request,
    dying_disk: DyingDisk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the disk, as the one before; a rank in a thread is enough for it."""
    monkeypatch.setattr(jobs_batch, "RayGangs", lambda *_, **__: ThreadGang)
    monkeypatch.setattr(jobs_batch, "ray_hosts", lambda: [jobs_batch.this_host()])
    harm = (dying_disk.fail, dying_disk.repair, "disk I/O|[Rr]ead-only")
    harmed_and_mended(sea, dying_disk.path / "out", harm, monkeypatch)


def harmed_and_mended(
    sea: Request,
    out: Path,
    harm: tuple[Callable[[], object], Callable[[], object], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Harm the disk at the second pass's first checkpoint, expect one sentence, mend it and run again."""
    break_it, mend_it, sentence = harm
    monkeypatch.setattr(jobs_batch, "ray_cluster", lambda *_, **__: nullcontext())
    batch = Batch(out, settings(ranks=1), [make_job(sea, name="sea")])
    struck: list[PoolEvent] = []

    def strike(event: PoolEvent) -> None:
        match event:
            case InJob(_, CheckpointWritten(phase="extrapolated")) if not struck:
                struck.append(event)
                break_it()

    with pytest.raises(CannotWrite, match=sentence):
        run_batch(batch, watch=lambda _: strike)
    if sentence == "full":  # what was being written when a disk becomes read-only cannot be removed either
        assert not list(out.rglob(".*")), "no half-written file"
    mend_it()
    heard: list[PoolEvent] = []
    rows = run_batch(batch, watch=lambda _: heard.append)
    assert isinstance(rows[0].state, Done)
    assert not list(out.rglob(".*")), "no half-written file"
    notes = [
        event.event.text for event in heard if isinstance(event, InJob) and isinstance(event.event, Note)
    ]
    assert any("resumed after step" in text for text in notes)


def test_a_gang_of_two_makes_the_pictures_of_one_process(
    small_ray: None, sea: Request, tmp_path: Path
) -> None:
    """Proofs first, by ranks that say they are on two hosts, whose link is fast enough."""
    small: dict[str, Any] = {"model": sea.model, "steps": 3, "native_steps": 3, "dtype": "float64"}
    requests = {
        "sea": Request("a red sun over the sea", size="144x112", **small),
        "hill": Request("a house on a hill", size="80x128", **small),
    }
    run = Run(tmp_path, requests)
    made = run(proofs_only=True, rank_class=RankElsewhere, least_link_gb_s=1e-6)
    assert set(made.values()) == {Proofed(attempts=1)}
    assert all((tmp_path / name / "proof.png").is_file() for name in requests)
    assert sorted(approve(tmp_path, [])) == ["hill", "sea"]
    states = run()
    work = [(fields["work"], fields["gang"]) for fields in run.heard("job.started")]
    assert work == [("proof", "gang-0")] * 2 + [("poster", "gang-0")] * 2
    loads = [fields["job"] for fields in run.heard("stage.started", stage="load")]
    assert (sorted(loads[:2]), loads[2:]) == (["hill", "sea"], ["sea"]), "once a rank, then once a gang"
    topology = Topology.alone()
    for name, request in requests.items():
        pixels = render(request, topology=topology).pixels
        assert pixels is not None
        assert run.done(name)["pixels_sha256"] == hash_of(bands_of_array(to_eight_bit(pixels)))
        assert isinstance(states[name], Done)
        assert not (tmp_path / name / "checkpoints").exists()
        native = run.heard("step", job=name, stage="native")
        assert len(native) == 3, "the poster went on from the proof"


def test_a_gang_makes_the_first_passes_ahead_and_its_posters_from_them(
    small_ray: None, sea: Request, tmp_path: Path
) -> None:
    """Two posters of two passes beyond native size, a rank each, then together."""
    small: dict[str, Any] = {"model": sea.model, "steps": 4, "native_steps": 3, "dtype": "float64"}
    way: dict[str, Any] = {**small, "method": {"cascade": [2.0], "start": {"sigma": 0.8}}}
    requests = {name: Request(f"a {name}", size="160x144", **way) for name in ("sea", "hill")}
    run = Run(tmp_path, requests)
    states = run(passes_ahead=2)
    work = [fields["work"] for fields in run.heard("job.started")]
    assert work == ["proof", "proof", "poster", "poster"]
    topology = Topology.alone()
    for name, request in requests.items():
        assert isinstance(states[name], Done)
        pixels = render(request, topology=topology).pixels
        assert pixels is not None
        assert run.done(name)["pixels_sha256"] == hash_of(bands_of_array(to_eight_bit(pixels)))
        steps = [fields["stage"] for fields in run.heard("step", job=name)]
        assert steps == sorted(steps, key=["native", "cascade 1", "extrapolated"].index), "none made again"
        assert steps.count("native") == 3
        assert (tmp_path / name / "native.png").is_file()


def test_a_gang_whose_host_is_told_that_it_goes_away_drains_and_none_is_built_there(
    small_ray: None, tmp_path: Path
) -> None:
    notice = tmp_path / "notice"
    gangs = RayGangs(settings(notice=str(notice), deadlines=replace(LIMITS, place=2.0)))
    gang = gangs("gang-0", 1)
    try:
        gang.poll()
        assert not gang.draining()
        notice.touch()
        deadline = time.monotonic() + SEEN_S
        while not gang.draining() and time.monotonic() < deadline:
            gang.poll()
            time.sleep(0.05)
        assert gang.draining()
        nodes = living_nodes({"CPU": 1.0})
        assert gangs.nodes.avoided(nodes) == nodes != []
        assert living_nodes({"CPU": 1000.0}) == [], "no rank fits there, so it is no node to go to"
    finally:
        gang.destroy()
    with pytest.raises(ClusterUnavailable, match="without 1 node that lost gangs or are shutting down"):
        gangs("gang-0", 1)


def test_a_gang_on_a_slow_link_is_refused_before_any_poster_is_begun(small_ray: None) -> None:
    gangs = RayGangs(settings(least_link_gb_s=1e6), RankElsewhere)
    sentence = r"gang-0: its ranks did not start: SlowLink: .* at least 1000000\.00 are needed"
    with pytest.raises(ClusterUnavailable, match=sentence):
        gangs("gang-0", 2)


def test_ranks_that_can_never_work_together_are_refused_in_their_own_words(small_ray: None) -> None:
    gangs = RayGangs(settings(), MisfitRank)
    with pytest.raises(BadConfig, match="gang-0: parallel: rank 0 computes on an H100, rank 1 on an L4"):
        gangs("gang-0", 1)
