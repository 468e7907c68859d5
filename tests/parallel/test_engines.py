"""Sequence parallelism equals plain attention to 1e-10 in float64, with peaked logits and odd lengths."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks

from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.mesh import build_mesh, single_rank
from imax_dist.parallel.sequence import JointLayout, gather, shard
from imax_dist.parallel.topology import Topology

MESHES = [(2, 1), (1, 2), (4, 1), (1, 4), (2, 2)]
HEADS, HEAD_DIM = 4, 8


def joint_qkv(text: int, image: int, kv_heads: int = HEADS) -> list[torch.Tensor]:
    """Peaked: logits of standard deviation 9, so that a wrong log-sum-exp shows."""
    generator = torch.Generator().manual_seed(5)
    q, k, v = (
        3 * torch.randn((2, text + image, heads, HEAD_DIM), generator=generator, dtype=torch.float64)
        for heads in (HEADS, kv_heads, kv_heads)
    )
    return [q, k, v]


def plain_attention(text: int, image: int, text_copies: int, kv_heads: int = HEADS) -> torch.Tensor:
    """Softmax written out, with the text keys and the heads that share a key literally repeated."""
    q, k, v = joint_qkv(text, image, kv_heads)
    shared = [kv_heads * head // HEADS for head in range(HEADS)]
    k, v = k[:, :, shared], v[:, :, shared]
    k = torch.cat([k[:, :text]] * text_copies + [k[:, text:]], dim=1)
    v = torch.cat([v[:, :text]] * text_copies + [v[:, text:]], dim=1)
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(HEAD_DIM)
    return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v)


def sharded_attention(
    topology: Topology,
    degrees: tuple[int, int],
    text: int,
    image: int,
    text_copies: int,
    replicated: bool,
    kv_heads: int = HEADS,
) -> dict[str, Any]:
    mesh = build_mesh(topology, ulysses=degrees[0], ring=degrees[1])
    layout = JointLayout.of(text_tokens=text, image_tokens=image, ranks=mesh.size, text_replicated=replicated)
    local = []
    for x in joint_qkv(text, image, kv_heads):
        text_piece = x[:, :text] if replicated else shard(x[:, :text], layout.text, mesh, dim=1)
        local.append(torch.cat([text_piece, shard(x[:, text:], layout.image, mesh, dim=1)], dim=1))
    output = TorchEngine(mesh)(*local, layout=layout, text_weight=text_copies)
    own = layout.text[mesh.rank]
    text_output = output[:, :own]
    if not replicated:
        text_output = gather(text_output, layout.text, mesh, dim=1)
    image_output = gather(output[:, own:], layout.image, mesh, dim=1)
    return {"text": text_output.numpy(), "image": image_output.numpy()}


@pytest.mark.parametrize("replicated", [False, True], ids=["text_sharded", "text_replicated"])
@pytest.mark.parametrize("text_copies", [1, 3])
@pytest.mark.parametrize("degrees", MESHES, ids=lambda d: f"u{d[0]}r{d[1]}")
def test_sharded_attention_equals_plain_attention(
    degrees: tuple[int, int], text_copies: int, replicated: bool
) -> None:
    text, image = 7, 61  # neither divides by any number of ranks
    expected = plain_attention(text, image, text_copies).numpy()
    for result in run_ranks(
        degrees[0] * degrees[1], sharded_attention, degrees, text, image, text_copies, replicated
    ):
        assert np.abs(result["text"] - expected[:, :text]).max() < 1e-10
        assert np.abs(result["image"] - expected[:, text:]).max() < 1e-10


def grouped_attention(topology: Topology, degrees: tuple[int, int]) -> list[tuple[Any, ...]]:
    """Every case of grouped-query attention on one mesh: (kv heads, copies, replicated, result)."""
    cases = [(kv, copies, text) for kv in (1, 2) for copies in (1, 3) for text in (False, True)]
    return [(*case, sharded_attention(topology, degrees, 7, 61, case[1], case[2], case[0])) for case in cases]


@pytest.mark.parametrize("degrees", MESHES, ids=lambda d: f"u{d[0]}r{d[1]}")
def test_fewer_key_heads_than_query_heads_match_on_every_mesh(degrees: tuple[int, int]) -> None:
    """Ulysses 2 and 4 over 1 and 2 key heads: divided where possible, else repeated."""
    for results in run_ranks(degrees[0] * degrees[1], grouped_attention, degrees):
        for kv_heads, copies, _, result in results:
            expected = plain_attention(7, 61, copies, kv_heads).numpy()
            assert np.abs(result["text"] - expected[:, :7]).max() < 1e-10
            assert np.abs(result["image"] - expected[:, 7:]).max() < 1e-10


@pytest.mark.parametrize("text_copies", [1, 3])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_one_rank_shares_key_heads_too(kv_heads: int, text_copies: int) -> None:
    layout = JointLayout.of(text_tokens=6, image_tokens=33, ranks=1)
    output = TorchEngine(single_rank())(*joint_qkv(6, 33, kv_heads), layout=layout, text_weight=text_copies)
    assert (output - plain_attention(6, 33, text_copies, kv_heads)).abs().max() < 1e-10


@pytest.mark.parametrize("degrees", [(2, 1), (1, 2), (2, 2)], ids=lambda d: f"u{d[0]}r{d[1]}")
def test_fewer_text_tokens_than_ranks_or_none_still_match(degrees: tuple[int, int]) -> None:
    for text in (0, 1):
        expected = plain_attention(text, 21, 2).numpy()
        results = run_ranks(degrees[0] * degrees[1], sharded_attention, degrees, text, 21, 2, False)
        assert np.abs(results[0]["image"] - expected[:, text:]).max() < 1e-10


def test_gathered_image_has_the_same_bits_on_every_rank() -> None:
    first, *others = run_ranks(4, sharded_attention, (2, 2), 7, 61, 1, False)
    for other in others:
        assert np.array_equal(first["image"], other["image"])


@pytest.mark.parametrize("text_copies", [1, 5])
def test_one_rank_counts_text_copies_like_literal_ones(text_copies: int) -> None:
    layout = JointLayout.of(text_tokens=6, image_tokens=33, ranks=1)
    output = TorchEngine(single_rank())(*joint_qkv(6, 33), layout=layout, text_weight=text_copies)
    assert (output - plain_attention(6, 33, text_copies)).abs().max() < 1e-10


def test_a_text_counted_once_per_ring_rank_would_be_seen() -> None:
    """Guards the guard: counting replicated text twice is far outside the tolerance."""
    right, wrong = plain_attention(7, 61, 1), plain_attention(7, 61, 2)
    assert (right - wrong).abs().max() > 1e-2
