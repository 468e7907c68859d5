"""Which layout is chosen, why the others are not, and what is said when nothing fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner.works import bench, cluster, flux

from imax_dist.errors import BadValue
from imax_dist.parallel.mesh import check_heads, choose_degrees
from imax_dist.parallel.sequence import JointLayout
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.request import Request
from imax_dist.planner import communication
from imax_dist.planner.choose import choose
from imax_dist.planner.describe import as_json, lines, one_line
from imax_dist.planner.estimate import GIB, makespan, usable_bytes
from imax_dist.planner.memory import rank_memory, step_bytes
from imax_dist.planner.poster import poster_time
from imax_dist.planner.split import Fixed, Layout, Split, gangs_that_fit, layouts, splits, why_illegal
from imax_dist.planner.time import step_time
from imax_dist.planner.workload import Pass, with_settings, workloads


@settings(max_examples=80, deadline=None)
@given(ulysses=st.integers(1, 30), ring=st.integers(1, 8))
def test_a_split_is_legal_exactly_when_the_mesh_takes_it(ulysses: int, ring: int) -> None:
    net = flux().network.transformer
    illegal = why_illegal(Split(ulysses, ring), net, image_tokens=1000)
    try:
        choose_degrees(ulysses * ring, heads=net.heads, ulysses=ulysses, ring=ring)
        check_heads(net.heads, ulysses=ulysses)
    except Exception:
        assert illegal is not None
    else:
        assert illegal is None


def test_fewer_key_heads_send_less_unless_ulysses_repeats_them() -> None:
    few = replace(flux().network.transformer, heads=24, kv_heads=8)
    tokens = Pass(1, 1200, 0, 1)

    def layer(ulysses: int, ring: int) -> float:
        moved = communication.sent(few, tokens, Split(ulysses, ring), element=1)
        return (moved.ulysses + moved.ring) / (few.blocks * 100 * few.width)

    assert layer(4, 3) == pytest.approx(10 / 3)  # DECISIONS 25: u4 r3 3.33, u12 with repeated keys 3.67
    assert layer(12, 1) == pytest.approx(11 / 3)
    assert why_illegal(Split(12, 1), few, image_tokens=99) is None
    assert why_illegal(Split(1, 8), few, image_tokens=7) == "7 image tokens cannot be shared by 8 ranks"


@pytest.mark.parametrize(
    ("ranks", "gangs"), [(1, 16), (2, 8), (3, 4), (5, 2), (8, 2), (12, 0), (16, 1), (24, 0), (32, 0)]
)
def test_gangs_stay_within_nodes_or_take_whole_ones(ranks: int, gangs: int) -> None:
    assert gangs_that_fit(bench(nodes=2), ranks) == gangs


def test_layouts_name_every_degree_of_every_gang_size() -> None:
    found = layouts(bench(per_node=4))
    assert Layout(2, Split(1, 2)) in found
    assert Layout(1, Split(2, 2)) in found
    assert len(found) == sum(len(splits(ranks)) for ranks in range(1, 5))
    assert {layout.split.ranks for layout in layouts(bench(per_node=4), Fixed(ranks=2))} == {2}


@settings(max_examples=60, deadline=None)
@given(u=st.sampled_from([1, 2, 3, 4]), r=st.sampled_from([1, 2, 4]), image=st.integers(10, 200))
def test_bytes_sent_are_the_closed_form(u: int, r: int, image: int) -> None:
    net, tokens = flux().network.transformer, Pass(1, image * u * r, 3 * u * r, 1)
    moved = communication.sent(net, tokens, Split(u, r), element=2)
    own, width = tokens.tokens / (u * r), net.width
    layer = 4 * own * width * (u - 1) / u + 2 * own * width * (r - 1)
    assert moved.ulysses + moved.ring == pytest.approx(2 * net.blocks * layer)
    layout = JointLayout.of(text_tokens=tokens.text, image_tokens=tokens.image, ranks=u * r)
    assert layout.joint[0] == own


def test_flux_at_4096_px_on_eight_ranks_sends_what_the_reference_says() -> None:
    work = flux()
    tokens = Pass(1, 65_536, 512, 1)
    net = work.network.transformer
    assert communication.sent(net, tokens, Split(8, 1), element=2).ulysses == pytest.approx(10.1e9, rel=0.01)
    assert communication.sent(net, tokens, Split(1, 8), element=2).ring == pytest.approx(40.5e9, rel=0.01)


def test_a_ring_on_gpus_hides_behind_attention_and_on_slow_links_does_not() -> None:
    net, last, split = flux().network.transformer, flux().extrapolated[0], Split(1, 16)

    def added(nodes: int, attention: float) -> float:
        here = bench(nodes=nodes, per_node=16 // nodes)
        return communication.seconds(net, last, split, here, element=2, attention=attention)

    hops = net.blocks * 15
    assert added(2, 1e3) - added(2, 1e4) == 0.0
    assert hops * 50e-6 <= added(2, 1e3) < hops * 51e-6
    assert added(1, 0.0) < added(2, 0.0)
    assert added(2, 0.0) > 10 * added(2, 1e3)


def test_pieces_of_heads_hide_each_other_behind_attention() -> None:
    """On GPUs at 4096 px, without a ring; what is left of an exchange is its first or last piece."""
    work, here, split = flux(), cluster("8xH100"), Split(8, 1)
    net, last = work.network.transformer, work.extrapolated[-1]
    assert communication.pieces(net, last, split, here) == 3
    assert communication.pieces(net, last, Split(8, 2), cluster("2x8xH100")) == 1
    assert communication.pieces(net, last, split, cluster("8xcpu")) == 1

    def added(attention: float) -> float:
        return communication.seconds(net, last, split, here, element=2, attention=attention)

    gather = communication.sent(net, last, split, element=2).gather
    rest = here.link(8).seconds(gather, 1 + communication.AGREEMENTS)
    assert added(1e3) - rest == pytest.approx((added(0.0) - rest) / 3)


def test_more_ranks_are_faster_and_lose_a_little() -> None:
    work, here = flux(), cluster("8xH100")
    times = [poster_time(work, Split(u, 1), here).extrapolated for u in (1, 2, 4, 8)]
    assert times == sorted(times, reverse=True)
    assert 1.0 < 8 * times[3] / times[0] < 1.3


def test_the_published_scaling_of_flux_at_4096_px_is_met() -> None:
    """xDiT's figure of August 2024: FLUX.1-schnell, 4 eager steps at 4096 px on 1, 2, 4 and 8 A100, less
    the 0.9 s that do not shrink with them (prompt, VAE)."""
    work = flux(model="flux-schnell", preset="direct")
    for ranks, published in ((1, 79.03), (2, 39.48), (4, 20.1), (8, 10.63)):
        split = Split(ranks, 1)
        steps = sum(
            each.steps * step_time(work, each, split, cluster("8xA100")).total for each in work.extrapolated
        )
        assert steps == pytest.approx(published - 0.9, rel=0.1)


def test_a_single_poster_gets_all_ranks_and_a_hundred_get_one_each() -> None:
    here = cluster("8xH100")
    one, many = choose([flux()], here), choose([flux()] * 96, here)
    assert one.chosen.layout == Layout(1, Split(8, 1))
    assert (many.chosen.layout.gangs, many.chosen.layout.split.ranks) == (8, 1)
    assert many.chosen.span.seconds == pytest.approx(12 * many.chosen.longest.total)
    assert many.chosen.gpu_hours == pytest.approx(8 * many.chosen.seconds / 3600)


def test_nothing_legal_that_fits_is_faster_than_the_choice() -> None:
    works = [flux()] * 5 + [flux("2048x2048")] * 7
    here = cluster("4xH100")
    choice = choose(works, here)
    for layout in layouts(here):
        fits = all(
            rank_memory(work, layout.split, here).total <= usable_bytes(layout, here) for work in set(works)
        )
        if why_illegal(layout.split, works[0].network.transformer, image_tokens=9999) is None and fits:
            times = [poster_time(work, layout.split, here).total for work in works]
            assert makespan(times, layout.gangs).seconds >= choice.chosen.span.seconds / 1.011


def test_every_layout_is_chosen_or_rejected_with_a_reason() -> None:
    here = cluster("8xH100")
    choice = choose([flux()] * 20, here)
    told = [choice.chosen.layout, *(each.layout for each in choice.rejected)]
    assert sorted(str(layout.split) for layout in told) == sorted(str(each.split) for each in layouts(here))
    assert all(each.reason for each in choice.rejected)
    reasons = " ".join(each.reason for each in choice.rejected)
    assert "% slower" in reasons
    assert "ulysses 5 does not divide the 24 attention heads" in reasons


def test_no_more_gangs_than_posters_and_idle_devices_are_named() -> None:
    choice = choose([flux()] * 2, cluster("8xH100"), ranks=1)
    assert choice.chosen.layout.gangs == 2
    assert "6 of 8 H100 stay idle" in choice.warnings


def test_a_tight_plan_carries_a_warning() -> None:
    work, here = replace(flux(), encoders_away=True, vae_gib=8), cluster("1xH100")
    need = rank_memory(work, Split(), here).total
    tight = replace(here, hardware=replace(here.hardware, memory=need / 0.9))
    assert any("memory is tight" in warning for warning in choose([work], tight).warnings)


def test_a_long_tail_carries_a_warning() -> None:
    assert any(
        "idle at the end" in each for each in choose([flux()] * 3, cluster("2xH100"), ranks=1).warnings
    )


def test_what_cannot_fit_is_refused_with_numbers_and_what_would() -> None:
    with pytest.raises(BadValue) as refused:
        choose([flux("16384x16384", preset="paper")], cluster("1xL40S"))
    message = str(refused.value)
    assert "no plan on 1 x L40S fits: on 1 rank, 16384x16384 needs" in message
    assert "GiB a rank" in message
    assert "at most about" in message


def test_what_a_refusal_offers_does_fit() -> None:
    work = flux("8192x8192")
    with pytest.raises(BadValue, match="what would: ") as refused:
        choose([work], cluster("1xL40S"))
    offers = str(refused.value).split("what would: ")[1].split(", or ")
    offer = next(each for each in offers if " x " in each)
    assert choose([work], cluster(offer.replace(" ", ""))).chosen.layout.split.ranks > 1


def test_where_only_the_vae_is_too_large_a_bound_on_it_is_offered() -> None:
    with pytest.raises(
        BadValue, match=r"what would: 3 ranks with vae_memory_gib: \d+ in the parallel settings, or"
    ) as refused:
        choose([flux("9216x9216")], cluster("3xL40S"))
    offered = int(str(refused.value).split("vae_memory_gib: ")[1].split()[0])
    less = replace(flux("9216x9216"), vae_gib=offered)
    assert choose([less], cluster("3xL40S")).chosen.layout.split.ranks == 3


def test_degrees_that_are_fixed_are_kept_or_refused_with_those_that_divide() -> None:
    choice = choose([flux()], cluster("8xH100"), ulysses=2, ring=2)
    assert choice.chosen.layout.split == Split(2, 2)
    with pytest.raises(BadValue, match="ulysses 5 does not divide the 24 attention heads") as refused:
        choose([flux()], cluster("8xH100"), ulysses=5)
    assert "nearest plan that works: 4 ranks, ulysses 4" in str(refused.value)
    with pytest.raises(BadValue, match="no room for gangs of ulysses 16: a gang can have 1-8 ranks here"):
        choose([flux()], cluster("8xH100"), ulysses=16)


@pytest.mark.parametrize(("size", "measured"), [("1024x1024", 0.141 / 0.159), ("2048x2048", 0.732 / 0.798)])
def test_compiled_blocks_move_less_on_a_gpu_and_are_asked_for_by_name(size: str, measured: float) -> None:
    """As on an H100 (BENCHMARKS.md)."""
    settings = ParallelSettings(compile="regional")
    assert not with_settings(flux(size), settings, device="cpu").compiled
    compiled, one, here = with_settings(flux(size), settings, device="gpu"), Split(), cluster("1xH100")
    eager, less = (step_time(work, work.passes[-1], one, here).total for work in (flux(size), compiled))
    assert less / eager == pytest.approx(measured, abs=0.02)


@pytest.mark.parametrize(("posters", "compiled"), [(1, False), (8, False), (400, True)])
def test_blocks_are_compiled_where_a_batch_gains_more_than_that_takes(posters: int, compiled: bool) -> None:
    settings, here = ParallelSettings(compile="auto"), cluster("8xH100")
    work = with_settings(flux("2048x2048"), settings, device="gpu")
    assert with_settings(flux("2048x2048"), settings, device="cpu").compiled is False
    choice = choose([work] * posters, here)
    assert choice.compiled == compiled
    for asked in (True, False):
        fixed = choose([replace(work, compiled=asked)] * posters, here)
        assert fixed.compiled == asked
        assert fixed.chosen.seconds >= choice.chosen.seconds
    assert as_json(choice, [work])["compile"] == ("regional" if compiled else "none")
    assert ("blocks compiled" in "\n".join(lines(choice, [work]))) == compiled


def test_text_encoders_on_the_host_do_not_count_against_a_gpu() -> None:
    with_them, without = flux(), replace(flux(), encoders_away=True)
    here = cluster("1xH100")
    assert rank_memory(with_them, Split(), here).encoders > 9e9
    assert rank_memory(without, Split(), here).encoders == 0.0
    little = replace(here, hardware=replace(here.hardware, memory=36e9))
    with pytest.raises(BadValue, match="1 rank with text_encoders: cpu in the parallel settings"):
        choose([replace(flux("2048x2048"), vae_gib=2)], little)


def test_text_encoders_leave_a_gpu_they_would_crowd() -> None:
    """As they do after the prompt of every poster (pipeline/prompt.py): a poster fits that could not."""
    need = rank_memory(flux(), Split(), cluster("1xL40S"))
    assert (need.encoders, need.fullest) == (0.0, "the VAE")
    assert need.prompt > 9e9
    assert choose([flux()], cluster("1xL40S")).chosen.layout.split.ranks == 1


@pytest.mark.parametrize(
    ("gangs", "ranks", "message"),
    [
        (None, 16, "has no room for 16 ranks: a gang can have 1-8 ranks here"),
        (3, 4, "has no room for 3 gangs of 4 ranks: a gang can have 1-2 ranks here"),
        (9, None, "has no room for 9 gangs: there are 8 devices here"),
    ],
)
def test_more_than_the_cluster_holds_is_refused(gangs: int | None, ranks: int | None, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        choose([flux()], cluster("8xH100"), gangs=gangs, ranks=ranks)


def test_what_is_fixed_stays_fixed() -> None:
    choice = choose([flux()] * 9, cluster("8xH100"), gangs=2, ranks=4)
    assert (choice.chosen.layout.gangs, choice.chosen.layout.split.ranks) == (2, 4)


def test_text_copies_cost_tokens() -> None:
    few, many = flux(), flux(preset="paper")
    assert few.extrapolated[-1].text == 512
    assert many.extrapolated[-1].text == 16 * 512
    assert many.flops > few.flops
    assert step_bytes(many, many.extrapolated[-1], Split()) > step_bytes(few, few.extrapolated[-1], Split())


def test_shifted_steps_have_one_more_row_and_column_of_tokens() -> None:
    shifted, plain = flux().extrapolated
    assert (shifted.image, plain.image) == (257 * 257, 256 * 256)
    assert (shifted.steps, plain.steps) == (15, 15)


def test_memory_goes_down_with_ranks_but_for_the_weights() -> None:
    work, here = flux("8192x8192"), cluster("8xH100")
    one, eight = (rank_memory(work, Split(u, 1), here) for u in (1, 8))
    assert one.weights == eight.weights == pytest.approx(23.97e9, rel=0.01)
    assert one.encoders == pytest.approx(9.77e9, rel=0.01)
    assert 25 * GIB < one.step < 34 * GIB  # the reference says 26 to 29 GiB of activations
    assert eight.step < one.step / 4


def test_equal_requests_share_a_workload_and_different_ones_do_not() -> None:
    requests = [
        Request("a", size="256x256", seed=1),
        Request("b", size="256x256", seed=2),
        Request("b", size="512x256"),
    ]
    first, second, third = workloads(requests, device="cpu")
    assert first is second
    assert first != third


def test_the_words_for_people_are_complete() -> None:
    works = [flux()] * 10
    choice = choose(works, cluster("2x8xA100"))
    text = "\n".join(lines(choice, works))
    words = ("10 posters of 4096x4096 px", "2 x 8 x A100", "predicted from data-sheet rates", "who runs what")
    for word in (*words, "GPU-hours", "not taken", "memory a rank"):
        assert word in text
    assert max(len(line) for line in text.splitlines()) <= 100
    assert one_line(choice).startswith("planned: ")
    values = as_json(choice, works)
    assert values["chosen"]["makespan"] == choice.chosen.start + choice.chosen.span.seconds
    assert all(not line.strip().startswith(("s)", "% ", "%;", "%,")) for line in text.splitlines())
    assert len(values["rejected"]) == len(choice.rejected)
