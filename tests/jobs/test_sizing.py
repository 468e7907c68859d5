"""Gangs and ranks that nobody named: chosen by posters and cluster, refused where nothing fits."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from imax_dist.cli.main import main
from imax_dist.errors import BadValue
from imax_dist.jobs import sizing
from imax_dist.jobs.batch import load_pool_settings
from imax_dist.jobs.ray_gangs import pool_parallel
from imax_dist.jobs.settings import PoolSettings
from imax_dist.jobs.sizing import Host, fill_defaults_from_plan, open_pool, planned_seconds, remedy
from imax_dist.pipeline.request import Request
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.hardware import load_hardware
from imax_dist.planner.poster import first_without_room
from imax_dist.planner.workload import Workload, workloads

OPEN = PoolSettings(open=("gangs", "ranks"))
GIB = 2.0**30
CORES = Host(cores=4, gpus=0, gpu="", memory=32 * 2**30)
H100 = Host(cores=64, gpus=8, gpu="NVIDIA H100 80GB HBM3", memory=2**40)


def posters(count: int, size: str = "512x512", model: str = "embedded") -> list[Request]:
    return [Request(f"poster {number}", size=size, model=model) for number in range(count)]


def test_many_posters_get_a_rank_each_and_one_gets_several() -> None:
    many, said = fill_defaults_from_plan(OPEN, posters(8), [CORES])
    assert (many.gangs, many.ranks, many.open) == (4, 1, ())
    assert said.startswith("planned: 4 gangs x 1 rank on 4 x cpu")
    one, _ = fill_defaults_from_plan(OPEN, posters(1, "1024x1024"), [CORES])
    assert one.gangs == 1
    assert one.ranks > 1
    assert one.ranks % (one.ulysses or 1) == 0


def test_gpus_of_every_node_are_used_and_no_gang_lies_on_two_unasked() -> None:
    flux = posters(1, "4096x4096", "flux-dev")
    hosts = [H100._replace(gpu="H100")] * 2
    chosen, _ = fill_defaults_from_plan(OPEN, flux, hosts)
    assert (chosen.gangs, chosen.ranks, chosen.placement) == (1, 8, "STRICT_PACK")
    assert chosen.least_link_gb_s is None
    asked = PoolSettings(ranks=16, open=("gangs",))
    chosen, _ = fill_defaults_from_plan(asked, flux, hosts)
    assert (chosen.gangs, chosen.ranks, chosen.placement) == (1, 16, "PACK")
    assert 8 % pool_parallel(chosen).ulysses == 0
    assert pool_parallel(chosen).least_link_gb_s == chosen.least_link_gb_s == pytest.approx(0.5 * 40, rel=0.5)
    many, _ = fill_defaults_from_plan(OPEN, flux * 64, [H100, H100])
    assert (many.gangs, many.ranks, many.placement) == (16, 1, "STRICT_PACK")


def test_a_batch_on_gangs_of_several_gpus_makes_its_first_passes_ahead() -> None:
    flux, asked = posters(8, "4096x4096", "flux-dev"), PoolSettings(ranks=8, open=("gangs",))
    chosen, _ = fill_defaults_from_plan(asked, flux, [H100])
    assert (chosen.passes_ahead, chosen.proofs_first, chosen.native) == (2, False, "rank0")
    small, _ = fill_defaults_from_plan(asked, posters(5, "2048x2048", "flux-dev"), [H100])
    assert small.passes_ahead == 1, "the last pass is everybody's"
    assert not fill_defaults_from_plan(asked, flux[:1], [H100])[0].passes_ahead
    for wished in (0, 1):
        assert (
            fill_defaults_from_plan(replace(asked, passes_ahead=wished), flux, [H100])[0].passes_ahead
            == wished
        )
    on_cores = PoolSettings(ranks=2, open=("gangs",))
    assert not fill_defaults_from_plan(on_cores, posters(5), [CORES])[0].passes_ahead


def test_of_gangs_that_were_named_the_planner_says_how_their_ranks_work() -> None:
    """Also of pools such as configs/jobs/eight-gpus.yaml, which leave nothing open."""
    flux, named = posters(16, "4096x4096", "flux-dev"), PoolSettings(ranks=8, gangs=2)
    chosen, said = fill_defaults_from_plan(named, flux, [H100, H100])
    assert (chosen.passes_ahead, said) == (2, "")
    assert (chosen.gangs, chosen.ranks, chosen.placement) == (2, 8, named.placement)
    wide, _ = fill_defaults_from_plan(PoolSettings(ranks=16), flux, [H100, H100])
    assert pool_parallel(wide).least_link_gb_s == pytest.approx(0.5 * 40, rel=0.5)
    seen = replace(named, proofs_first=True)
    assert fill_defaults_from_plan(seen, flux, [H100, H100])[0].passes_ahead == 0, "they are looked at first"
    assert fill_defaults_from_plan(named, flux, [H100._replace(gpu="X1")])[0] == named
    assert fill_defaults_from_plan(named, flux, [H100._replace(gpus=4)])[0] == named, "nodes on their way"
    wrong = [replace(flux[0], model="/nowhere"), replace(flux[0], preset="nosuch")]
    for job in wrong:
        assert fill_defaults_from_plan(named, [*flux, job], [H100, H100])[0] == named, "it fails alone"


def test_a_poster_without_room_for_a_pass_on_one_rank_holds_all_others_back() -> None:
    kinds = [*posters(8, "4096x4096", "flux-dev"), *posters(8, "8192x8192", "flux-dev")]
    named = PoolSettings(ranks=8)
    all_of_it = fill_defaults_from_plan(named, kinds, [H100])[0].passes_ahead
    h100 = load_hardware("H100")
    little = replace(h100, memory=h100.memory * 0.49)
    assert first_without_room(_work(kinds[-1]), Cluster(little, 8)) == 2
    assert all_of_it == 3


def _work(request: Request) -> Workload:
    return workloads([request], device="gpu")[0]


def test_a_batch_compiles_blocks_where_it_gains_by_it(tmp_path: Path) -> None:
    file = tmp_path / "auto.yaml"
    file.write_text("compile: auto\n")
    asked = replace(OPEN, parallel=str(file))
    found = [
        fill_defaults_from_plan(asked, posters(1, "2048x2048", "flux-dev") * count, [H100])[0]
        for count in (1, 1000)
    ]
    assert [each.compile for each in found] == ["none", "regional"]
    assert [pool_parallel(each).compiles for each in found] == [False, True]
    assert not pool_parallel(replace(found[1], parallel="auto")).compiles, "only where it is left open"


def test_what_was_named_stays() -> None:
    settings = load_pool_settings("default", {"ranks": 2})
    assert settings.open == ("gangs",)
    chosen, _ = fill_defaults_from_plan(settings, posters(5), [CORES])
    assert (chosen.gangs, chosen.ranks) == (2, 2)
    named = load_pool_settings("default", {"gangs": 1, "ranks": 1})
    assert fill_defaults_from_plan(named, posters(5), [CORES]) == (named, "")
    assert fill_defaults_from_plan(OPEN, [], [CORES]) == (OPEN, "")


def test_cores_are_shared_out_by_what_a_rank_takes() -> None:
    chosen, _ = fill_defaults_from_plan(
        PoolSettings(open=("gangs", "ranks"), cpus_per_rank=2), posters(9), [CORES]
    )
    assert chosen.gangs * chosen.ranks <= 2


def test_a_poster_that_fits_nowhere_is_refused_before_anything_starts() -> None:
    with pytest.raises(BadValue, match=r"no plan on 4 x cpu fits: .*8192x8192 needs .* what would: at most"):
        fill_defaults_from_plan(OPEN, posters(1, "8192x8192"), [CORES._replace(memory=2**30)])


def test_an_unknown_gpu_makes_every_device_a_gang_and_says_so() -> None:
    chosen, said = fill_defaults_from_plan(OPEN, posters(9), [H100._replace(gpu="NVIDIA Z9")])
    assert (chosen.gangs, chosen.ranks) == (8, 1)
    assert "configs/hardware does not describe a NVIDIA Z9" in said


def test_a_measured_file_in_the_working_folder_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "configs/hardware/cpu.yaml").read_text()
    (tmp_path / sizing.MEASURED_FILE).write_text(text.replace("name: cpu", "name: this-host"))
    _, said = fill_defaults_from_plan(OPEN, posters(3), [CORES])
    assert "4 x this-host" in said


def test_a_batch_that_cannot_fit_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("imax_dist.jobs.batch.this_host", lambda: CORES._replace(memory=2**30))
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"prompt": "a", "size": "8192x8192"}\n')
    assert main(["batch", str(manifest), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 64
    assert "no plan on 4 x cpu fits" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_open_queue_has_one_rank_a_gang_and_a_gang_for_every_device() -> None:
    gpus = [Host(32, 8, "H100", 256 * GIB), Host(32, 8, "H100", 256 * GIB)]
    opened = PoolSettings(open=("gangs", "ranks"))
    assert (open_pool(opened, gpus).gangs, open_pool(opened, gpus).ranks) == (16, 1)
    four = PoolSettings(ranks=4, open=("gangs",))
    assert (open_pool(four, gpus).gangs, open_pool(four, gpus).ranks) == (4, 4)
    fixed = PoolSettings(gangs=3, open=("ranks",))
    assert (open_pool(fixed, gpus).gangs, open_pool(fixed, gpus).ranks) == (3, 1)


def test_an_open_queue_on_a_cpu_leaves_memory_for_every_rank() -> None:
    opened = PoolSettings(device="cpu", open=("gangs", "ranks"))
    assert open_pool(opened, [Host(64, 0, "", 32 * GIB)]).gangs == 8
    assert open_pool(opened, [Host(2, 0, "", 64 * GIB)]).gangs == 2
    assert open_pool(opened, [Host(2, 0, "", 1 * GIB)]).gangs == 1


def test_a_poster_is_planned_on_a_gang_of_the_pool_or_not_at_all() -> None:
    host = [Host(4, 0, "", 32 * GIB)]
    one, two = (
        planned_seconds(Request("x", size="256x256"), PoolSettings(device="cpu", ranks=n), host)
        for n in (1, 2)
    )
    assert one is not None
    assert two is not None
    assert 0.1 < two < one
    unknown = [Host(8, 1, "NobodyKnows", 32 * GIB)]
    assert planned_seconds(Request("x", size="256x256"), PoolSettings(device="cuda"), unknown) is None
    with pytest.raises(BadValue):
        planned_seconds(Request("x", size="30000x30000"), PoolSettings(device="cpu"), [Host(1, 0, "", GIB)])


def test_the_plan_that_would_have_had_room_is_named() -> None:
    (request,) = posters(1, "8192x8192", "flux-dev")
    said = remedy(request, 1, PoolSettings(gangs=8, ranks=1), [H100])
    assert re.fullmatch(r"set most_ranks: 2; the planner finds room on 2xH100, \d+ GiB a rank", said)
    assert remedy(request, 64, PoolSettings(gangs=8, ranks=1), [H100]) == ""
    assert remedy(request, 1, PoolSettings(gangs=8, ranks=1, device="cpu"), [H100]) == ""
    assert remedy(request, 1, PoolSettings(gangs=8, ranks=1), [H100._replace(gpu="a new kind")]) == ""
