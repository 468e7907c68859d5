"""What a plan says of the whole poster: who makes its native picture, and how much of the ranks is used."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imax_dist.models.blueprint import find_blueprint
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.request import Request
from imax_dist.planner.choose import choose
from imax_dist.planner.cluster import parse_cluster
from imax_dist.planner.describe import as_json, lines
from imax_dist.planner.split import Split, layouts
from imax_dist.planner.time import host_work, poster_time
from imax_dist.planner.workload import Workload, under, workload_of


@pytest.fixture(scope="module")
def work() -> Workload:
    request = Request("a poster", size="4096x4096", model="flux-dev")
    return workload_of(request, find_blueprint("flux-dev"), device="gpu")


def test_a_native_pass_on_all_ranks_keeps_fewer_of_them_waiting(work: Workload) -> None:
    cluster, split = parse_cluster("8xH100"), Split(8, 1)
    alone = poster_time(work, split, cluster)
    shared = poster_time(replace(work, native_by="shared"), split, cluster)
    chosen = poster_time(replace(work, native_by="auto"), split, cluster)
    assert shared.native < 0.5 * alone.native
    assert (shared.extrapolated, shared.decode) == (alone.extrapolated, alone.decode)
    assert (alone.native_by, shared.native_by, chosen) == ("rank0", "shared", shared)
    one = poster_time(replace(work, native_by="auto"), Split(), cluster)
    assert one.native_by == "rank0"


def test_who_makes_it_comes_from_the_parallel_settings(work: Workload) -> None:
    assert under(work, ParallelSettings(native="auto"), device="gpu").native_by == "auto"
    assert under(work, ParallelSettings(), device="gpu").native_by == "rank0"


def test_a_plan_tells_the_efficiency_of_a_poster_beside_that_of_a_step(work: Workload) -> None:
    choice = choose([work], parse_cluster("8xH100"), ranks=8)
    step, poster = choice.chosen.efficiencies or (0.0, 0.0)
    assert 0.5 < poster < step <= 1.0
    said = "\n".join(lines(choice, [work]))
    assert f"{100 * step:.0f} % of a step, {100 * poster:.0f} % of a poster; 7 ranks wait" in said
    assert as_json(choice, [work])["chosen"]["efficiency"] == {"step": step, "poster": poster}
    single = choose([work], parse_cluster("1xH100"))
    assert single.chosen.efficiencies is None
    assert "efficiency" not in "\n".join(lines(single, [work]))


def test_several_ranks_give_the_host_more_to_start(work: Workload) -> None:
    assert host_work(Split(), dispatch=5e-6, kind="gpu") == 0.0
    assert host_work(Split(8, 1), dispatch=2e-5, kind="gpu") == pytest.approx(5 + 2 * 5)
    assert host_work(Split(8, 2), dispatch=2e-5, kind="gpu") == pytest.approx(16 + 3 * 5)
    assert host_work(Split(8, 8), dispatch=2e-5, kind="cpu") == 0.0


def test_no_layout_splits_a_ulysses_group_over_nodes() -> None:
    cluster = parse_cluster("2x4xH100")
    wide = [layout.split for layout in layouts(cluster) if layout.split.ranks == 8]
    assert {split.ulysses for split in wide} == {1, 2, 4}
