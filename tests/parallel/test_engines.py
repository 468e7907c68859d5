"""Every engine equals plain attention to 1e-10 in float64, with peaked logits and odd lengths.

One suite over torch (ours), xfuser (xDiT's own code, on gloo through tests/xfuser_on_cpu.py) and
diffusers: Ulysses, ring and both; text sharded and replicated, counted once and three times; as many key
heads as query heads, and fewer.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from ranks import run_ranks
from xfuser_on_cpu import answer_for_cpu, xfuser_is_installed

from imax_dist.errors import BadConfig
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.engines.registry import ENGINES, choose_engine
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.kernels import EVERY, Kernel, at_even_lengths, cpu_flash, plain
from imax_dist.parallel.mesh import SequenceMesh, build_mesh, single_rank
from imax_dist.parallel.sequence import JointLayout, gather, shard
from imax_dist.parallel.topology import Topology

MESHES = [(2, 1), (1, 2), (4, 1), (1, 4), (2, 2)]
HEADS, HEAD_DIM = 4, 8
TEXT, IMAGE = 7, 61
"""Neither divides by any number of ranks."""


class Case(NamedTuple):
    kv_heads: int = HEADS
    copies: int = 1
    replicated: bool = False
    text: int = TEXT
    image: int = IMAGE


EVEN = Kernel("cpu_even", at_even_lengths(cpu_flash, plain, block=8), "cpu", EVERY)
MAKERS = {**ENGINES, "torch, even lengths": partial(TorchEngine, kernel=EVEN)}
"""In every mesh, block and piece there are keys over, or none, or less than a block of them."""
CASES = [
    *(Case(*values) for values in product((1, 2, HEADS), (1, 3), (False, True))),
    *(Case(copies=2, text=text, image=21, replicated=text == 1) for text in (0, 1)),
    Case(copies=2, text=1, image=21),
    Case(text=8, image=64),
]


def joint_qkv(case: Case) -> list[torch.Tensor]:
    """Peaked: logits of standard deviation 9, so that a wrong log-sum-exp shows."""
    generator = torch.Generator().manual_seed(5)
    q, k, v = (
        3
        * torch.randn((2, case.text + case.image, heads, HEAD_DIM), generator=generator, dtype=torch.float64)
        for heads in (HEADS, case.kv_heads, case.kv_heads)
    )
    return [q, k, v]


def plain_attention(case: Case) -> torch.Tensor:
    """Softmax written out, with the text keys and the heads that share a key literally repeated."""
    q, k, v = joint_qkv(case)
    shared = [case.kv_heads * head // HEADS for head in range(HEADS)]
    k, v = k[:, :, shared], v[:, :, shared]
    k = torch.cat([k[:, : case.text]] * case.copies + [k[:, case.text :]], dim=1)
    v = torch.cat([v[:, : case.text]] * case.copies + [v[:, case.text :]], dim=1)
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(HEAD_DIM)
    return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v)


def layout_of(case: Case, ranks: int) -> JointLayout:
    return JointLayout.of(
        text_tokens=case.text, image_tokens=case.image, ranks=ranks, text_replicated=case.replicated
    )


def own_shards(case: Case, layout: JointLayout, mesh: SequenceMesh) -> list[torch.Tensor]:
    local = []
    for x in joint_qkv(case):
        text, image = x[:, : case.text], x[:, case.text :]
        text = text if case.replicated else shard(text, layout.text, mesh, dim=1)
        local.append(torch.cat([text, shard(image, layout.image, mesh, dim=1)], dim=1))
    return local


def sharded_attention(engine: AttentionEngine, mesh: SequenceMesh, case: Case) -> dict[str, Any]:
    """The global output by an engine, gathered on every rank."""
    layout = layout_of(case, mesh.size)
    output = engine(*own_shards(case, layout, mesh), layout=layout, text_weight=case.copies)
    own = layout.text[mesh.rank]
    text_output = output[:, :own]
    if not case.replicated:
        text_output = gather(text_output, layout.text, mesh, dim=1)
    image_output = gather(output[:, own:], layout.image, mesh, dim=1)
    return {"text": text_output.numpy(), "image": image_output.numpy()}


def every_case(topology: Topology, degrees: tuple[int, int], engines: list[str]) -> dict[str, Any]:
    """Engine -> one result a case; a refusal is the sentence it was refused with."""
    if "xfuser" in engines:
        answer_for_cpu()
    mesh = build_mesh(topology, ulysses=degrees[0], ring=degrees[1])
    results: dict[str, list[Any]] = {}
    for name in engines:
        engine = MAKERS[name](mesh)
        results[name] = []
        for case in CASES:
            try:
                results[name].append(sharded_attention(engine, mesh, case))
            except BadConfig as error:
                results[name].append(str(error))
    return results


RESULTS: dict[tuple[int, int], list[dict[str, Any]]] = {}


def results_on(degrees: tuple[int, int]) -> list[dict[str, Any]]:
    """Every rank's results on a mesh; the ranks run once for the module."""
    if degrees not in RESULTS:
        engines = [name for name in MAKERS if name != "xfuser" or xfuser_is_installed()]
        RESULTS[degrees] = run_ranks(degrees[0] * degrees[1], every_case, degrees, engines)
    return RESULTS[degrees]


@pytest.mark.parametrize("degrees", MESHES, ids=lambda d: f"u{d[0]}r{d[1]}")
@pytest.mark.parametrize("name", MAKERS)
def test_every_engine_equals_plain_attention(name: str, degrees: tuple[int, int]) -> None:
    if name == "xfuser" and not xfuser_is_installed():
        pytest.skip("xfuser and yunchang are not installed: pip install 'imax-dist[dev]'")
    for results in results_on(degrees):
        for case, result in zip(CASES, results[name], strict=True):
            if name == "diffusers" and case.replicated:
                assert "cannot hold the text on every rank; set text: sharded, or engine: torch" in result
                continue
            expected = plain_attention(case).numpy()
            assert np.abs(result["text"] - expected[:, : case.text]).max(initial=0) < 1e-10, case
            assert np.abs(result["image"] - expected[:, case.text :]).max() < 1e-10, case


@pytest.mark.parametrize("name", ENGINES)
def test_gathered_image_has_the_same_bits_on_every_rank(name: str) -> None:
    if name == "xfuser" and not xfuser_is_installed():
        pytest.skip("xfuser and yunchang are not installed: pip install 'imax-dist[dev]'")
    first, *others = (results[name][0]["image"] for results in results_on((2, 2)))
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("copies", [1, 5])
@pytest.mark.parametrize("kv_heads", [1, 2, HEADS])
@pytest.mark.parametrize("replicated", [False, True])
def test_one_rank_counts_copies_and_shares_heads_too(copies: int, kv_heads: int, replicated: bool) -> None:
    case = Case(kv_heads, copies, replicated, 6, 33)
    output = TorchEngine(single_rank())(*joint_qkv(case), layout=layout_of(case, 1), text_weight=copies)
    assert (output - plain_attention(case)).abs().max() < 1e-10


def test_a_text_counted_once_per_ring_rank_would_be_seen() -> None:
    """Guards the guard: counting replicated text twice is far outside the tolerance."""
    assert (plain_attention(Case()) - plain_attention(Case(copies=2))).abs().max() > 1e-2


ALONE = Topology.alone()


def test_auto_is_our_own_engine_and_a_wrong_name_is_refused() -> None:
    assert choose_engine("auto", text_replicated=False) == "torch"
    with pytest.raises(BadConfig, match=r"engine: 'xfusr' is not known; did you mean 'xfuser'\? known: auto"):
        choose_engine("xfusr", text_replicated=False)


def test_what_an_engine_cannot_do_is_refused_before_anything_is_computed() -> None:
    with pytest.raises(BadConfig, match=r"engine diffusers cannot hold the text on every rank; set text"):
        choose_engine("diffusers", text_replicated=True)
    with pytest.raises(BadConfig, match=r"engine xfuser shares one prompt among all ranks; set cfg: two_p"):
        choose_engine("xfuser", text_replicated=False, halves=True)


def test_an_engine_that_is_not_there_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine xfuser is missing, or refuses to import without CUDA."""
    import sys

    monkeypatch.setitem(sys.modules, "xfuser", None)
    monkeypatch.setitem(sys.modules, "xfuser.core.distributed", None)
    with pytest.raises(BadConfig, match=r"xfuser is not installed here; pip install 'imax-dist\[gpu\]'"):
        ENGINES["xfuser"](single_rank())
