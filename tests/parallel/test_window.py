"""The sparse engine equals its definition written as one weighted softmax, on one rank and on several."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks
from test_engines import HEAD_DIM, HEADS, Case, joint_qkv, layout_of, plain_attention, sharded_attention

from imax_dist.errors import BadConfig
from imax_dist.parallel.engines.registry import choose_engine
from imax_dist.parallel.engines.window import CHUNKS, LEAST, STRIDE, WindowEngine, attended
from imax_dist.parallel.mesh import build_mesh, single_rank
from imax_dist.parallel.sequence import JointLayout
from imax_dist.parallel.topology import Topology

IMAGE = 331
CASES = [
    Case(image=IMAGE),
    Case(image=IMAGE, copies=3),
    Case(kv_heads=2, image=IMAGE),
    Case(text=0, image=IMAGE),
]


def counts(case: Case) -> torch.Tensor:
    """How often each key counts for each query, (text + image, text + image)."""
    text, image = case.text, case.image
    table = torch.ones(text + image, text + image, dtype=torch.float64)
    for chunk in range(CHUNKS):
        start, stop = image * chunk // CHUNKS, image * (chunk + 1) // CHUNKS
        margin = (stop - start) // 2
        near = [max(0, start - margin) <= key < min(image, stop + margin) for key in range(image)]
        sampled = [key % STRIDE == STRIDE // 2 and not near[key] for key in range(image)]
        weight = (image - sum(near)) / sum(sampled)
        row = [1.0 if n else weight if s else 0.0 for n, s in zip(near, sampled, strict=True)]
        table[text + start : text + stop, text:] = torch.tensor(row, dtype=torch.float64)
    table[:, :text] = case.copies
    return table


def weighted_softmax(case: Case) -> torch.Tensor:
    q, k, v = joint_qkv(case)
    shared = [case.kv_heads * head // HEADS for head in range(HEADS)]
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k[:, :, shared]) / math.sqrt(HEAD_DIM) + counts(case).log()
    return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v[:, :, shared])


def every_case(topology: Topology) -> list[dict[str, Any]]:
    mesh = build_mesh(topology, ulysses=topology.world_size, ring=1)
    return [sharded_attention(WindowEngine(mesh, least=1), mesh, case) for case in CASES]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_it_is_the_weighted_softmax_on_any_number_of_ranks(ranks: int) -> None:
    for results in run_ranks(ranks, every_case):
        for case, result in zip(CASES, results, strict=True):
            expected = weighted_softmax(case).numpy()
            assert np.abs(result["text"] - expected[:, : case.text]).max(initial=0) < 1e-10, case
            assert np.abs(result["image"] - expected[:, case.text :]).max() < 1e-10, case


def test_a_native_pass_is_attended_exactly() -> None:
    case = Case(image=IMAGE)
    output = WindowEngine(single_rank())(*joint_qkv(case), layout=layout_of(case, 1))
    assert (output - plain_attention(case)).abs().max() < 1e-10
    assert attended(LEAST - 1) == LEAST - 1


def test_samples_stand_for_far_tokens_of_a_smooth_picture() -> None:
    """Keys and values that vary slowly over the picture: samples are as good as all, dropping them is not."""
    side = 128
    rows, columns = torch.meshgrid(*2 * [torch.linspace(0, 3, side, dtype=torch.float64)], indexing="ij")
    waves = torch.stack([(rows + n * columns).sin() for n in range(HEAD_DIM)], -1).reshape(1, -1, 1, HEAD_DIM)
    layout = JointLayout(text=(0,), image=(side * side,))
    engine = WindowEngine(single_rank())
    sparse = engine(waves, waves, waves, layout=layout)
    dense = torch.nn.functional.scaled_dot_product_attention(*(waves.transpose(1, 2),) * 3).transpose(1, 2)
    assert (sparse - dense).abs().max() < 0.01 < 0.1 * dense.std()


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(BadConfig, match="engine window is not exact; ask for it with quality: draft"):
        choose_engine("window", text_replicated=False)
    with pytest.raises(BadConfig, match="engine window cannot hold the text on every rank"):
        choose_engine("window", text_replicated=True, quality="draft")
    assert choose_engine("window", text_replicated=False, quality="draft") == "window"


def on_a_ring(topology: Topology) -> str:
    with pytest.raises(BadConfig) as caught:
        WindowEngine(build_mesh(topology, ulysses=1, ring=2))
    return str(caught.value)


def test_a_ring_is_refused_with_what_to_do() -> None:
    for sentence in run_ranks(2, on_a_ring):
        assert sentence.endswith(
            "not over a ring of 2; use as many ranks as divide the model's heads, with ring: 1"
        )
