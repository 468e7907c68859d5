"""Kernels are believed only after a check; the traps of other libraries fail it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ranks import run_ranks
from test_engines import Case, layout_of, own_shards, plain_attention
from torch import Tensor

from imax_dist.errors import BadConfig
from imax_dist.parallel.choose_kernel import AttentionShape, call_seconds, choose_kernel, fastest
from imax_dist.parallel.engines.padded import BlockAttention, padded
from imax_dist.parallel.engines.registry import ENGINES
from imax_dist.parallel.kernels import (
    EVERY,
    KERNELS,
    Kernel,
    at_even_lengths,
    candidates,
    cpu_flash,
    default_run,
    leaving,
    plain,
    verify,
)
from imax_dist.parallel.key_parts import KeyPart, attend_parts, key_parts
from imax_dist.parallel.mesh import build_mesh, single_rank
from imax_dist.parallel.sequence import gather
from imax_dist.parallel.topology import Topology
from imax_dist.vae import wide_heads

CPU = torch.device("cpu")
ALONE = Topology.alone()
WORK = AttentionShape(heads=4, head_dim=64, dtype=torch.float32, tokens=64)


def zero_log_sum_exp(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """What yunchang's math and cuDNN functions return: the right output, zeros for the log-sum-exp."""
    output, log_sum_exp = cpu_flash(q, k, v)
    return output, torch.zeros_like(log_sum_exp)


def coarse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys rounded to eight bits, as a draft kernel rounds them."""
    scale = k.abs().amax() / 127
    return cpu_flash(q, (k / scale).round() * scale, v)


ZEROS = Kernel("zeros", zero_log_sum_exp, "cpu", EVERY)
COARSE = Kernel("coarse", coarse, "cpu", EVERY, exact=False)
ABSENT = Kernel("absent", cpu_flash, "cpu", EVERY, module="no_such_package")
PLAIN = Kernel("plain_cpu", plain, "cpu", EVERY)


@pytest.mark.parametrize("dtype", EVERY, ids=str)
def test_the_cpu_kernel_passes_the_check_in_every_dtype(dtype: torch.dtype) -> None:
    verify(KERNELS["cpu"], CPU, dtype)


@pytest.mark.parametrize("dtype", EVERY, ids=str)
def test_a_log_sum_exp_of_zeros_is_found_in_every_dtype(dtype: torch.dtype) -> None:
    with pytest.raises(BadConfig, match=r"kernel zeros returns a wrong log-sum-exp here \(off by"):
        verify(ZEROS, CPU, dtype)


def test_a_coarse_kernel_passes_as_a_draft_and_not_as_exact() -> None:
    verify(COARSE, CPU, torch.float32)
    with pytest.raises(BadConfig, match=r"returns a wrong output"):
        verify(COARSE._replace(exact=True), CPU, torch.float32)


def with_zero_log_sum_exp(topology: Topology) -> float:
    """The error of our ring with a kernel whose log-sum-exp is zeros."""
    mesh, case = build_mesh(topology, ulysses=1, ring=2), Case()
    layout = layout_of(case, 2)
    output = ENGINES["torch"](mesh, kernel=ZEROS)(*own_shards(case, layout, mesh), layout=layout)
    image = gather(output[:, layout.text[mesh.rank] :], layout.image, mesh, dim=1)
    return (image - plain_attention(case)[:, case.text :]).abs().max().item()


def test_without_the_check_a_ring_would_be_silently_wrong() -> None:
    assert min(run_ranks(2, with_zero_log_sum_exp)) > 0.1


def test_keys_that_are_padding_are_attended_by_no_one() -> None:
    """Zeros as keys have a logit of zero, not none: leaving them in is far outside the tolerance."""
    case = Case(image=5)
    layout = layout_of(case, 2)
    shards = [
        torch.cat([x[:, :4], x[:, 7:10]], dim=1) for x in (plain_attention(case), plain_attention(case))
    ]
    q = k = padded(shards[0], 9)
    right = attend_parts(shards[0], shards[0], shards[0], [KeyPart(((0, 7),))]).output
    spans = key_parts(layout, [0], padded_to=9)
    assert spans == [KeyPart(((0, 7),))]
    assert torch.equal(attend_parts(q, k, k, spans).output[:, :7], right)
    wrong = attend_parts(q, k, k, [KeyPart(((0, 9),))]).output[:, :7]
    assert (wrong - right).abs().max() > 1e-3


def test_rows_of_a_block_are_pieces_known_without_a_mask() -> None:
    layout = layout_of(Case(text=3, image=7), 2)  # 2 + 4 and 1 + 3
    assert key_parts(layout, [0, 1]) == [KeyPart(((0, 10),))]
    assert key_parts(layout, [0, 1], padded_to=6) == [KeyPart(((0, 10),))]
    assert key_parts(layout, [1, 0], padded_to=6) == [KeyPart(((0, 4), (6, 12)))]
    text, image = key_parts(layout, [0, 1], text_weight=3)
    assert (text, image) == (KeyPart(((0, 2), (6, 7)), 3), KeyPart(((2, 6), (7, 10))))


def test_replicated_text_enters_the_first_block_of_a_foreign_ring_only() -> None:
    """Counted again at every hop, it would weigh as much as the ring is long."""
    mesh = single_rank().__class__(ulysses=1, ring=3, rank=0)
    layout = layout_of(Case(text=4, image=9, replicated=True), 3)
    blocks = BlockAttention(mesh, layout, text_weight=2, step=1, kernel=None)
    texts = [[part for part in parts if part.weight == 2] for parts in blocks._blocks]
    assert [len(found) for found in texts] == [1, 0, 0]


def masked_ring(topology: Topology) -> str:
    """Engines take no mask at all, so none can be dropped on the way round the ring."""
    mesh = build_mesh(topology, ulysses=1, ring=2)
    layout = layout_of(Case(), 2)
    try:
        ENGINES["torch"](mesh)(*own_shards(Case(), layout, mesh), layout=layout, attn_mask=None)  # type: ignore
    except TypeError as error:
        return str(error)
    return "a mask was taken"


def test_a_mask_cannot_be_handed_to_a_ring() -> None:
    """diffusers rotates keys but not the mask: silently wrong (0.6 on two ranks)."""
    assert all("attn_mask" in said for said in run_ranks(2, masked_ring))


def test_inexact_kernels_are_candidates_only_for_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KERNELS, "coarse", COARSE)
    assert [k.name for k in candidates(CPU, torch.float32, "exact")] == ["cpu"]
    assert [k.name for k in candidates(CPU, torch.float32, "draft")] == ["cpu", "coarse"]
    assert {name for name, kernel in KERNELS.items() if not kernel.exact} == {"flash3_fp8", "sage", "coarse"}


@pytest.mark.parametrize(
    ("name", "quality", "message"),
    [
        ("flahs", "exact", r"kernel 'flahs' is not known; known: auto, cpu, flash3"),
        ("coarse", "exact", r"kernel coarse is not exact; ask for it with quality: draft"),
        ("flash", "exact", r"kernel flash does not take float32 on cpu; here: cpu"),
        ("absent", "exact", r"kernel absent needs the package no_such_package; or set kernel: auto"),
        ("zeros", "exact", r"kernel zeros returns a wrong log-sum-exp"),
    ],
)
def test_a_kernel_that_cannot_be_had_is_refused(
    name: str, quality: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kernel in (COARSE, ABSENT, ZEROS):
        monkeypatch.setitem(KERNELS, kernel.name, kernel)
    with pytest.raises(BadConfig, match=message):
        choose_kernel(name, quality, ALONE, WORK)


def test_the_fastest_right_kernel_is_taken_and_every_result_listed() -> None:
    """A kernel that is fast and wrong is listed as refused."""
    seconds = {"cpu": 0.002, "plain_cpu": 0.001, "zeros": 0.0001}
    chosen, measured = fastest(
        [KERNELS["cpu"], PLAIN, ZEROS], CPU, WORK, timer=lambda kernel, *_: seconds[kernel.name]
    )
    assert chosen is PLAIN
    assert (measured["cpu"], measured["plain_cpu"]) == ("2.00 ms", "1.00 ms")
    assert measured["zeros"].startswith("refused: parallel: kernel zeros returns a wrong log-sum-exp")


def test_a_kernel_must_be_faster_by_more_than_noise_to_be_preferred() -> None:
    for other, expected in ((0.00096, KERNELS["cpu"]), (0.0009, PLAIN)):
        seconds = {"cpu": 0.001, "plain_cpu": other}

        def timer(kernel: Kernel, *_: object, seconds: dict[str, float] = seconds) -> float:
            return seconds[kernel.name]

        assert fastest([KERNELS["cpu"], PLAIN], CPU, WORK, timer=timer)[0] is expected


def test_a_call_of_a_slower_kernel_takes_longer() -> None:
    def slow(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(0.02)
        return KERNELS["cpu"].run(q, k, v)

    work = AttentionShape(1, 8, torch.float32, tokens=16)
    assert call_seconds(Kernel("slow", slow, "cpu", EVERY), CPU, work) > 0.02
    assert call_seconds(KERNELS["cpu"], CPU, work) < 0.02


def test_a_cpu_measures_nothing() -> None:
    assert choose_kernel("auto", "exact", ALONE, WORK).sentence() == "attention kernel cpu"
    assert default_run("cpu", torch.bfloat16) is cpu_flash


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-12), (torch.bfloat16, 2e-2)], ids=str)
def test_products_by_blocks_are_attention_with_its_log_sum_exp(
    dtype: torch.dtype, allowed: float, monkeypatch: pytest.MonkeyPatch, rng: torch.Generator
) -> None:
    """Peaked logits, lengths that no block divides, and a last block of one query."""
    q, k, v = (torch.randn(2, 3, length, 16, generator=rng).to(dtype) for length in (36, 29, 29))
    q = 6.0 * q
    expected = plain(q.double(), k.double(), v.double())
    for own, right in zip(wide_heads.products(q, k, v, logits=2 * 3 * 29 * 7), expected, strict=True):
        assert (own.double() - right).abs().max() < allowed


BLOCKS_OF_8 = Kernel("cpu_even", at_even_lengths(cpu_flash, cpu_flash, block=8), "cpu", EVERY)


@pytest.mark.parametrize("keys", [5, 8, 15, 16, 17, 129])
@pytest.mark.parametrize("dtype", EVERY, ids=str)
def test_whole_blocks_and_what_is_over_are_attention_with_its_log_sum_exp(
    dtype: torch.dtype, keys: int, rng: torch.Generator
) -> None:
    """The key that is over has most of the weight for half of the queries; bfloat16 is as near as as is."""
    q, k, v = (torch.randn(2, length, 3, 16, generator=rng).transpose(1, 2) for length in (13, keys, keys))
    k[:, :, -1] *= 6.0
    q, k, v = (x.to(dtype) for x in (q, k, v))
    expected = plain(q.double(), k.double(), v.double())
    kept = [x.clone() for x in (q, k, v)]
    found, as_is = BLOCKS_OF_8.run(q, k, v), cpu_flash(q, k, v)
    for own, other, right in zip(found, as_is, expected, strict=True):
        allowed = max(1e-12 if dtype == torch.float64 else 4e-6, 2.5 * (other.double() - right).abs().max())
        assert (own.double() - right).abs().max() <= allowed
    assert all(map(torch.equal, kept, (q, k, v)))


def test_only_whole_blocks_reach_the_kernel(rng: torch.Generator) -> None:
    met: list[tuple[int, int]] = []

    def noting(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        assert q.transpose(1, 2).is_contiguous()  # what cuDNN was given before
        met.append((q.shape[2], k.shape[2]))
        return cpu_flash(q, k, v)

    run = at_even_lengths(noting, cpu_flash)
    for queries, keys in ((257, 257), (256, 384), (3, 128), (257, 127)):
        run(*(torch.randn(1, n, 2, 8, generator=rng).transpose(1, 2) for n in (queries, keys, keys)))
    assert met == [(384, 256), (256, 384), (128, 128), (257, 127)]


def test_a_kernel_is_timed_on_an_even_and_on_an_odd_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is slow on odd grids alone loses to the same at even lengths."""

    def slow_if_odd(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(0.02 * (k.shape[2] % 8 > 0))
        return cpu_flash(q, k, v)

    slow = Kernel("slow", slow_if_odd, "cpu", EVERY)
    even = Kernel("slow_even", at_even_lengths(slow_if_odd, cpu_flash, block=8), "cpu", EVERY)
    chosen, measured = fastest([slow, even], CPU, WORK)
    assert chosen is even
    assert float(measured["slow"].split()[0]) > 10.0


def test_a_sage_without_a_log_sum_exp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """sageattention 1, which an index gives for the plain name, takes ``return_lse`` and ignores it."""
    old = SimpleNamespace(sageattn=lambda *given, **_: given[0])
    monkeypatch.setitem(sys.modules, "sageattention", old)
    x = torch.zeros(2, 1, 4, 64)
    with pytest.raises(BadConfig, match="needs sageattention 2 or newer"):
        KERNELS["sage"].run(x, x, x)


def test_flash3_alone_leaves_multiprocessors_for_hops(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
        asked.append(given)
        output, log_sum_exp = plain(*(x.transpose(1, 2) for x in (q, k, v)))
        return output.transpose(1, 2), log_sum_exp

    monkeypatch.setitem(sys.modules, "flash_attn_interface", SimpleNamespace(flash_attn_func=attend))
    q, k, v = torch.randn(3, 1, 2, 5, 8)
    for sms in (0, 6):
        run = leaving(KERNELS["flash3"], sms)
        assert run is not None
        assert torch.equal(run.run(q, k, v)[0], plain(q, k, v)[0])
    assert asked == [{"return_attn_probs": True}, {"return_attn_probs": True, "sm_margin": 6}]
    assert leaving(KERNELS["cudnn"], 6) is KERNELS["cudnn"]
    assert leaving(None, 6) is None


def test_a_package_that_does_not_import_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FlashAttention-2 that was built for another torch, where FlashAttention-4 is looked for."""
    package = tmp_path / "broken_attention"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('undefined symbol')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert not ABSENT._replace(module="broken_attention.cute").installed
    assert not ABSENT._replace(module="no_such_package.cute").installed


def asserting(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """How FlashAttention-4 says that it does not take a GPU or a head size."""
    raise AssertionError("Unsupported compute capability")


def test_a_kernel_that_asserts_is_refused_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel("asserting", asserting, "cpu", EVERY)
    chosen, measured = fastest([kernel, PLAIN], CPU, WORK)
    assert chosen is PLAIN
    assert measured["asserting"] == "refused: Unsupported compute capability"
    monkeypatch.setitem(KERNELS, "asserting", kernel)
    with pytest.raises(BadConfig, match="asserting does not work here: Unsupported compute capability"):
        choose_kernel("asserting", "exact", ALONE, WORK)
