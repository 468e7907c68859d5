"""What a layer sends is the closed form, the same sequence on every rank, and hops travel during compute."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from ranks import run_ranks
from test_engines import Case, layout_of, own_shards
from tiny_flux import make_tiny_flux
from traffic import COMPUTE, Traffic
from xfuser_on_cpu import answer_for_cpu, xfuser_is_installed

from imax_dist.parallel.engines.registry import ENGINES
from imax_dist.parallel.mesh import build_mesh
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.ranks import ParallelSettings, join_for, join_ranks

MESHES = [(4, 1), (1, 4), (2, 2)]
CASES = [
    Case(text=8, image=64),
    Case(text=8, image=64, replicated=True),
    Case(text=8, image=64, copies=3),
    Case(kv_heads=2, text=8, image=64),
    Case(kv_heads=1, text=8, image=64),
]
CHANNELS, HEAD_DIM, BYTES, BATCH = 4 * 8, 8, 8, 2


def closed_form(case: Case, ulysses: int, ring: int) -> float:
    """Bytes a rank sends in one layer: 4(S/P)C(u-1)/u + 2(S/P)C(r-1), keys counted by their own width."""
    ranks = ulysses * ring
    repeated = case.kv_heads if case.kv_heads % ulysses == 0 else ulysses  # 1 and 2 heads, degrees 2 and 4
    keys = repeated * HEAD_DIM
    exchanged = (ulysses - 1) / ulysses
    tokens = case.image if case.replicated else case.text + case.image
    elements = (2 * CHANNELS + 2 * keys) * tokens / ranks * exchanged + 2 * keys * tokens / ranks * (ring - 1)
    if case.replicated:
        elements += case.text * CHANNELS * exchanged  # the text's output heads
    return elements * BYTES * BATCH


def record(topology: Topology, engines: list[str]) -> dict[str, Any]:
    """(engine, mesh, case) -> bytes of two layers and the sequence."""
    if "xfuser" in engines:
        answer_for_cpu()
    found = {}
    for degrees in MESHES:
        mesh = build_mesh(topology, ulysses=degrees[0], ring=degrees[1])
        for name in engines:
            engine = ENGINES[name](mesh)
            for index, case in enumerate(CASES):
                if name == "diffusers" and case.replicated:
                    continue
                layout = layout_of(case, mesh.size)
                with Traffic() as traffic:
                    layer = traffic.by_layer(engine)
                    for _ in range(2):
                        layer(*own_shards(case, layout, mesh), layout=layout, text_weight=case.copies)
                found[name, degrees, index] = (traffic.layer_bytes(), traffic.sequence())
    return found


@pytest.fixture(scope="module")
def recorded() -> list[dict[Any, Any]]:
    return run_ranks(4, record, [name for name in ENGINES if name != "xfuser" or xfuser_is_installed()])


@pytest.mark.parametrize("degrees", MESHES, ids=lambda d: f"u{d[0]}r{d[1]}")
@pytest.mark.parametrize("index", range(len(CASES)))
def test_a_layer_sends_the_closed_form(recorded: list[Any], degrees: tuple[int, int], index: int) -> None:
    expected = closed_form(CASES[index], *degrees)
    for rank in recorded:
        layers, _ = rank["torch", degrees, index]
        assert layers == [expected, expected], CASES[index]


def test_every_rank_issues_the_same_sequence(recorded: list[Any]) -> None:
    for key, (_, sequence) in recorded[0].items():
        assert all(rank[key][1] == sequence for rank in recorded), key
        assert len(sequence) > 2


def test_a_hop_is_posted_before_the_block_in_hand_is_computed(recorded: list[Any]) -> None:
    """So that it travels meanwhile: send, receive, compute, ... and nothing after the last block."""
    _, sequence = recorded[0]["torch", (1, 4), 0]
    names = [name for name, layer in sequence if layer == 0]
    assert names == ["send", "recv_", COMPUTE] * 3 + [COMPUTE]


def test_diffusers_ring_gathers_everything_and_sends_what_ours_sends(recorded: list[Any]) -> None:
    """Its ring holds all keys on every rank, but as many bytes leave each rank."""
    ours, theirs = (recorded[0][name, (1, 4), 0] for name in ("torch", "diffusers"))
    assert ours[0] == theirs[0]
    assert ("all_gather_into_tensor", 0) in theirs[1]
    assert ("send", 0) in ours[1]


def one_step(topology: Topology, folder: str) -> dict[str, Any]:
    """The traffic of one step of a tiny FLUX, odd grid, ring and Ulysses."""
    from imax_dist.method.text_duplication import TextCopies
    from imax_dist.models.load import load_model
    from imax_dist.pipeline.plan import make_plan
    from imax_dist.pipeline.positions import PositionTables
    from imax_dist.pipeline.request import Request

    model = load_model(folder, device=topology.device, dtype="float64")
    ranks = join_for(model, ParallelSettings(ulysses=2, ring=2), topology)
    plan = make_plan(Request("a red sun", size="144x112", model=folder), model.spec).last
    sequence = ranks.sequence(TextCopies(offsets=((0, 0),)))
    conditioning = model.encode_prompt("a red sun", negative=False)
    grid = plan.grid.tokens(model.spec.patch)
    x = torch.randn(1, 16, plan.grid.height, plan.grid.width, dtype=torch.float64)
    tables = PositionTables(plan, model)
    with Traffic() as traffic:
        engine = traffic.by_layer(ranks.engine)
        model.velocity(
            x, 0.5, conditioning, tables=partial(tables.at, grid, 0.5), guidance_scale=1.0,
            sequence=sequence.__class__(sequence.mesh, engine, sequence.copies),
        )  # fmt: skip
    return {
        "outside": traffic.sent(None),
        "latent": x.numel() * x.element_size(),
        "sequence": traffic.sequence(),
        "layers": traffic.layer_bytes(),
    }


def test_beside_attention_a_step_sends_less_than_the_latent(tmp_path: Any) -> None:
    found = run_ranks(4, one_step, str(make_tiny_flux(tmp_path / "model")))
    for rank in found:
        assert 0 < rank["outside"] < rank["latent"]
        assert len(rank["layers"]) == 3
        assert rank["sequence"] == found[0]["sequence"]
        outside = [name for name, layer in rank["sequence"] if layer is None and name != COMPUTE]
        assert outside == ["_allgather_base_"]


def test_nothing_is_counted_outside_the_block_or_on_one_rank() -> None:
    alone = Topology.alone()
    ranks = join_ranks(ParallelSettings(), alone, heads=4)
    case = Case(text=8, image=64)
    with Traffic() as traffic:
        traffic.by_layer(ranks.engine)(
            *own_shards(case, layout_of(case, 1), ranks.mesh), layout=layout_of(case, 1)
        )
    assert traffic.layer_bytes() == [0]
    assert traffic.sequence() == [(COMPUTE, 0)]
