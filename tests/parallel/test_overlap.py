"""The exchange of heads travels while a block's MLP is computed, and the bits are those of waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ranks import run_ranks
from strict import Strict, replay

from imax_dist.liveness.beacon import SILENT, Beacon
from imax_dist.models.networks.flux import attention_beside_mlp
from imax_dist.parallel.engines import begun, marking
from imax_dist.parallel.engines.torch import TorchEngine, head_pieces
from imax_dist.parallel.mesh import SequenceMesh, build_mesh, single_rank
from imax_dist.parallel.sequence import JointLayout, shard
from imax_dist.parallel.topology import Topology
from imax_dist.parallel.ulysses import Piece

HEADS, HEAD_DIM, TEXT, IMAGE = 4, 8, 7, 61
WIDTH = HEADS * HEAD_DIM


def single_block() -> Any:
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock

    from imax_dist.models.joint_attention import JointProcessor

    torch.manual_seed(3)
    block = FluxSingleTransformerBlock(WIDTH, HEADS, HEAD_DIM).to(torch.bfloat16)
    block.attn.set_processor(JointProcessor())
    return block


def inputs(layout: JointLayout, mesh: SequenceMesh) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    text, image = (torch.randn(1, n, WIDTH, generator=generator) for n in (TEXT, IMAGE))
    angle = torch.randn(TEXT + IMAGE, HEAD_DIM, generator=generator)
    own_text, own_image = shard(text, layout.text, mesh, dim=1), shard(image, layout.image, mesh, dim=1)
    rows = own_text.shape[1] + own_image.shape[1]
    return {
        "hidden_states": own_image.bfloat16(),
        "encoder_hidden_states": own_text.bfloat16(),
        "temb": torch.randn(1, WIDTH, generator=generator).bfloat16(),
        "image_rotary_emb": (angle[:rows].cos(), angle[:rows].sin()),
    }


@torch.no_grad()
def both_ways(topology: Topology, degrees: list[tuple[int, int]]) -> list[tuple[bool, bool]]:
    """For every mesh: whether the engine's and the block's bits are those of waiting."""
    found = []
    for ulysses, ring in degrees:
        mesh = build_mesh(topology, ulysses=ulysses, ring=ring)
        engine = TorchEngine(mesh)
        layout = JointLayout.of(text_tokens=TEXT, image_tokens=IMAGE, ranks=mesh.size)
        qkv = torch.randn(3, 1, layout.joint[mesh.rank], HEADS, HEAD_DIM)
        finish = begun(engine, *qkv, layout=layout, text_weight=2)
        torch.randn(64, 64) @ torch.randn(64, 64)
        same = torch.equal(finish(), engine(*qkv, layout=layout, text_weight=2))
        block, given = single_block(), inputs(layout, mesh)
        asked = {"engine": engine, "layout": layout, "text_weight": 1}
        theirs = block(**given, joint_attention_kwargs=asked)
        ours = attention_beside_mlp(block, **given, joint_attention_kwargs=asked)
        found.append((same, all(map(torch.equal, ours, theirs))))
    return found


@pytest.mark.parametrize("degrees", [[(1, 1)], [(2, 1), (1, 2)], [(4, 1), (2, 2)]], ids=str)
def test_what_travels_beside_the_mlp_has_the_bits_of_waiting_for_it(degrees: list[tuple[int, int]]) -> None:
    ulysses, ring = degrees[0]
    for found in run_ranks(ulysses * ring, both_ways, degrees):
        assert found == [(True, True)] * len(degrees)


@torch.no_grad()
def in_pieces(topology: Topology, groups: list[int], ring: int) -> tuple[float, Any, Any]:
    """The largest difference from one exchange, whatever shares a key and in however many pieces.

    With it, what was asked of the process group, every operation blocking.
    """
    mesh = build_mesh(topology, ulysses=topology.world_size // ring, ring=ring)
    layout = JointLayout.of(text_tokens=TEXT, image_tokens=IMAGE, ranks=mesh.size)
    rows, heads = layout.joint[mesh.rank], 12 * mesh.ulysses
    furthest = 0.0
    strict = Strict()
    for group in groups:
        query = torch.randn(2, rows, heads, HEAD_DIM, dtype=torch.float64) * 3
        key, value = torch.randn(2, 2, rows, heads // group, HEAD_DIM, dtype=torch.float64)
        for weight in (1, 3):
            with strict:
                whole, *others = (
                    TorchEngine(mesh, pieces=pieces)(query, key, value, layout=layout, text_weight=weight)
                    for pieces in (1, 2, 5, 99)
                )
            furthest = max([furthest, *(float((whole - each).abs().max()) for each in others)])
    return furthest, strict.log, strict.refused


@pytest.mark.parametrize(("ranks", "ring"), [(1, 1), (2, 1), (4, 1), (4, 2)])
def test_heads_that_travel_in_pieces_are_those_of_one_exchange(ranks: int, ring: int) -> None:
    """To rounding: a product of fewer heads may add up in another order. Each piece has hops of its own."""
    differences, logs, refused = zip(*run_ranks(ranks, in_pieces, [1, 3, 12], ring), strict=True)
    hops = sum(1 for each in logs[0] if each.messages)
    assert hops == (70 if ring > 1 else 0)
    assert max(differences) < 1e-13
    assert list(refused) == [[]] * ranks
    assert replay(list(logs)) == []


def test_a_piece_is_whole_groups_of_queries_and_all_pieces_are_all_heads() -> None:
    for share, keys, of in ((12, 12, 5), (12, 4, 3), (6, 1, 1)):
        bounds = [Piece(number, of).bounds(share, keys) for number in range(of)]
        assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
        assert bounds[-1][1] == share
        assert all(stop > start and start % (share // keys) == 0 for start, stop in bounds)


def test_a_gpu_takes_pieces_where_a_heads_attention_lasts() -> None:
    assert head_pieces(3, 65_536) == 3
    assert head_pieces(12, 65_536) == 4
    assert head_pieces(12, 16_384 + 512) == 1


class Told:
    """An engine that says when it begins and when it is waited for."""

    def __init__(self, said: list[str]) -> None:
        self.said = said
        self.plain = TorchEngine(single_rank())

    def __call__(self, *qkv: torch.Tensor, **how: Any) -> torch.Tensor:
        self.said.append("called")
        return self.plain(*qkv, **how)

    def begin(self, *qkv: torch.Tensor, **how: Any) -> Callable[[], torch.Tensor]:
        self.said.append("begun")

        def finish() -> torch.Tensor:
            self.said.append("waited for")
            return self.plain(*qkv, **how)

        return finish


@pytest.mark.parametrize("marks", [SILENT, Beacon()], ids=["silent", "marked"])
def test_a_single_stream_block_begins_to_send_before_its_mlp_and_waits_after_it(marks: Any) -> None:
    said: list[str] = []
    block, layout = single_block(), JointLayout.of(text_tokens=TEXT, image_tokens=IMAGE, ranks=1)
    block.proj_mlp.register_forward_hook(lambda *_: said.append("mlp"))
    engine = marking(Told(said), marks)
    asked = {"engine": engine, "layout": layout, "text_weight": 1}
    attention_beside_mlp(block, **inputs(layout, single_rank()), joint_attention_kwargs=asked)
    assert said == ["begun", "mlp", "waited for"]


def test_an_engine_that_cannot_begin_is_called_when_it_is_waited_for() -> None:
    said: list[str] = []
    told = Told(said)
    layout = JointLayout.of(text_tokens=TEXT, image_tokens=IMAGE, ranks=1)
    qkv = torch.randn(3, 1, TEXT + IMAGE, HEADS, HEAD_DIM)
    finish = begun(told.__call__, *qkv, layout=layout)
    assert said == []
    assert torch.equal(finish(), told.plain(*qkv, layout=layout))
    assert said == ["called"]
