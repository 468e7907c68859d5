"""The exchange of heads travels while a block's MLP is computed, and the bits are those of waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ranks import run_ranks

from imax_dist.liveness.beacon import SILENT, Beacon
from imax_dist.models.networks.flux import attention_beside_mlp
from imax_dist.parallel.engines import begun, marking
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.mesh import SequenceMesh, build_mesh, single_rank
from imax_dist.parallel.sequence import JointLayout, shard
from imax_dist.parallel.topology import Topology

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
