"""What a plan says of the whole poster: who makes its native picture, and how much of the ranks is used."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planner.works import MEASURED, flux

from imax_dist.models.blueprint import find_blueprint
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.request import Request
from imax_dist.planner.choose import choose
from imax_dist.planner.cluster import Cluster, parse_cluster
from imax_dist.planner.communication import ULYSSES_CALLS
from imax_dist.planner.describe import as_json, lines
from imax_dist.planner.hardware import load_hardware, read_hardware
from imax_dist.planner.poster import poster_time
from imax_dist.planner.split import Split, layouts
from imax_dist.planner.time import CALL_S, host_work, step_time
from imax_dist.planner.workload import Workload, with_settings, workload_of


@pytest.fixture(scope="module")
def work() -> Workload:
    request = Request("a poster", size="4096x4096", model="flux-dev")
    return workload_of(request, find_blueprint("flux-dev"), device="gpu")


def test_a_native_pass_on_all_ranks_keeps_fewer_of_them_waiting(work: Workload) -> None:
    cluster, split = parse_cluster("8xH100"), Split(8, 1)
    alone = poster_time(work, split, cluster)
    shared = poster_time(replace(work, native_by="shared"), split, cluster)
    chosen = poster_time(replace(work, native_by="auto"), split, cluster)
    assert shared.native < 0.6 * alone.native
    assert (shared.extrapolated, shared.decode) == (alone.extrapolated, alone.decode)
    assert (alone.native_by, shared.native_by, chosen) == ("rank0", "shared", shared)
    one = poster_time(replace(work, native_by="auto"), Split(), cluster)
    assert one.native_by == "rank0"


def test_who_makes_it_comes_from_the_parallel_settings(work: Workload) -> None:
    assert with_settings(work, ParallelSettings(native="auto"), device="gpu").native_by == "auto"
    assert with_settings(work, ParallelSettings(), device="gpu").native_by == "rank0"


def test_a_plan_tells_the_efficiency_of_a_poster_beside_that_of_a_step(work: Workload) -> None:
    choice = choose([work], parse_cluster("8xH100"), ranks=8)
    step, poster = choice.chosen.efficiencies or (0.0, 0.0)
    assert 0.5 < poster < step <= 1.0
    said = "\n".join(lines(choice, [work]))
    assert f"{100 * step:.0f} % of a step, {100 * poster:.0f} % of a poster; lost: " in said
    assert "rank 0 makes the native picture" in said
    assert as_json(choice, [work])["chosen"]["efficiency"] == {"step": step, "poster": poster}
    single = choose([work], parse_cluster("1xH100"))
    assert single.chosen.efficiencies is None
    assert "efficiency" not in "\n".join(lines(single, [work]))


def test_the_shares_that_stages_lose_add_up_to_what_is_missing(work: Workload) -> None:
    cluster, split = parse_cluster("8xH100"), Split(8, 1)
    alone, shared = (poster_time(work, each, cluster) for each in (Split(), split))
    lost = shared.lost(alone, 8)
    assert 1 - sum(lost.values()) == pytest.approx(alone.total / (8 * shared.total))
    assert lost["native pass"] == max(lost.values())
    assert lost["file"] == pytest.approx(7 / 8 * shared.write / shared.total)


@pytest.mark.parametrize(("posters", "rounds"), [(2, 1), (8, 1), (9, 2), (80, 10)])
def test_native_pictures_made_ahead_take_a_round_of_all_ranks(
    work: Workload, posters: int, rounds: int
) -> None:
    cluster, split = parse_cluster("8xH100"), Split(8, 1)
    one = poster_time(work, split, cluster)
    many = poster_time(work, split, cluster, posters=posters)
    assert (one.native_by, many.native_by) == ("rank0", "ahead")
    assert posters * many.native == pytest.approx(rounds * one.native)
    shared = poster_time(replace(work, native_by="shared"), split, cluster, posters=posters)
    assert shared.native_by == "shared"


def test_a_small_batch_on_one_gang_is_planned_with_native_pictures_ahead(work: Workload) -> None:
    choice = choose([work] * 8, parse_cluster("8xH100"), ranks=8)
    assert choice.chosen.longest.native_by == "ahead"
    said = " ".join(" ".join(lines(choice, [work] * 8)).split())
    assert "each rank makes the first 2 passes of a poster of its own before" in said


def test_passes_ahead_are_alone_for_a_round_and_the_last_one_never(work: Workload) -> None:
    cluster, split = parse_cluster("2x8xH100"), Split(8, 2)
    many = poster_time(work, split, cluster, posters=16)
    assert (many.native_by, many.passes_ahead) == ("ahead", 2)
    first = [each for each in work.extrapolated if each.number == 1]
    alone = sum(each.steps * step_time(work, each, Split(), cluster).total for each in first) / 16
    rest = [each for each in work.extrapolated if each.number == 2]
    together = sum(each.steps * step_time(work, each, split, cluster).total for each in rest)
    assert many.extrapolated == pytest.approx(alone + together)
    full = replace(cluster, hardware=replace(cluster.hardware, memory=36e9))
    assert poster_time(work, split, full, posters=16).passes_ahead < 2, "no room for it on one rank"


def test_a_poster_on_sixteen_gpus_uses_nine_tenths_of_their_time(work: Workload) -> None:
    cluster = parse_cluster("2x8xH100", load_hardware("H100-measured"))
    for split, least in ((Split(8, 2), 0.90), (Split(8, 1), 0.95)):
        alone = poster_time(work, Split(), cluster).total
        assert alone / (split.ranks * poster_time(work, split, cluster, posters=64).total) >= least


def test_a_gang_loads_once_and_the_first_poster_waits_for_it(work: Workload) -> None:
    here = parse_cluster("1xH100")
    two = choose([work] * 2, here).chosen
    weights = 2 * (11.9e9 + 4.76e9 + 0.12e9 + 0.08e9)
    assert two.start == pytest.approx(here.hardware.warm_up + weights / 2e9, rel=0.01)
    assert two.seconds == pytest.approx(two.start + 2 * two.longest.total)
    assert "of it before the first poster" in "\n".join(lines(choose([work] * 2, here), [work] * 2))


HOST_S = 24e-9
"""Seconds of one_jump on one H100 (BENCHMARKS.md), and what else was in them."""
STAGES = {
    "native pass, the first of a process": ("4096x4096", 5.72, "native", 0.95),
    "enlarged and encoded": ("4096x4096", 1.31, "enlarge", 0.0),
    "larger pass": ("4096x4096", 210.7, "extrapolated", 0.0),
    "decode": ("4096x4096", 2.15, "decode", HOST_S * 4096**2),
    "decode, alone": ("4096x4096", 2.34, "decode", HOST_S * 4096**2),
    "decode, 8192 px": ("8192x8192", 19.6, "decode", HOST_S * 8192**2),
}
"""Seconds that stages of a one_jump poster took on one H100 (BENCHMARKS.md), and what else was in them."""


@pytest.mark.parametrize("stage", STAGES)
def test_the_stages_of_a_poster_are_those_measured(stage: str) -> None:
    size, seconds, name, more = STAGES[stage]
    here = Cluster(load_hardware("H100-measured"), 1)
    assert here.hardware.warm_up == 0.95
    predicted = getattr(poster_time(flux(size), Split(), here), name) + more
    assert predicted == pytest.approx(seconds, rel=0.15)


def test_several_ranks_give_the_host_more_to_start() -> None:
    assert host_work(Split()) == (0, 0)
    assert host_work(Split(8, 1)) == (5, 2)
    assert host_work(Split(8, 1), pieces=3) == (15, 6)
    assert host_work(Split(8, 2)) == (12, 3)
    assert host_work(Split(1, 4)) == (24, 3)


def test_a_call_costs_the_host_what_was_measured_or_else_what_is_assumed() -> None:
    """Where kernels are done before the host has started them, so that every call shows."""
    work = flux("1536x1536")

    def starting(**measured: str) -> float:
        slow_host = read_hardware({**MEASURED, "dispatch": "100 us", **measured}, where="bench")
        return step_time(work, work.extrapolated[-1], Split(8, 1), Cluster(slow_host, 8)).starting

    assumed = starting()
    assert assumed > 0.0
    assert starting(call=f"{1e6 * CALL_S} us") == pytest.approx(assumed)
    calls = ULYSSES_CALLS * work.network.transformer.blocks
    assert starting(call=f"{1e6 * CALL_S + 1000} us") - assumed == pytest.approx(1e-3 * calls)


def test_pictures_between_passes_are_counted_at_their_own_size() -> None:
    """Native 1024 to 2048 to 4096: the second is decoded by all ranks."""
    first, second = flux(preset="imax").enlarged
    assert (first.before, first.number) == (flux().native_grid, 1)
    assert first.after == second.before
    assert (second.after, second.number) == (flux().grid, 2)


def test_no_layout_splits_a_ulysses_group_over_nodes() -> None:
    cluster = parse_cluster("2x4xH100")
    wide = [layout.split for layout in layouts(cluster) if layout.split.ranks == 8]
    assert {split.ulysses for split in wide} == {1, 2, 4}
