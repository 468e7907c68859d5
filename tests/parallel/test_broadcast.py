"""What rank 0 makes reaches every rank as the same bits; what fails on rank 0 fails on every rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ranks import run_ranks
from torch import Tensor

from imax_dist.errors import BadConfig, BadManifest, CannotWrite, ImaxError, MissingInput, Preempted
from imax_dist.parallel.broadcast import _packed, from_first_rank, highest, on_every_rank
from imax_dist.parallel.topology import Topology

ALONE = Topology.alone()


def made() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "double": torch.randn(3, 5, generator=generator, dtype=torch.float64),
        "half": torch.randn(4, 4, generator=generator).to(torch.bfloat16),
        "turned": torch.randn(2, 6, generator=generator).T,
        "step": torch.tensor(17),
        "empty": torch.zeros(0, 3),
    }


FAILURES: list[Exception] = [
    BadConfig("preset 'offical' is not known"),
    BadManifest("--resume must: torn"),
    MissingInput("été " * 2000),
    CannotWrite("the disk is full"),
    Preempted("stopped after step 3"),
    ValueError("a bug"),
    KeyError("latents"),
]


PLAIN: Any = (None, True, 1, 0.1, "a name", [], {}, {"nested": ([2], (3,))})


def fail(error: Exception) -> Callable[[], dict[str, Tensor]]:
    def make() -> dict[str, Tensor]:
        raise error

    return make


def exchange(topology: Topology) -> dict[str, Any]:
    """Every failure in turn, then the tensors: an error leaves the ranks in step."""
    caught = []
    for failure in FAILURES:
        try:
            from_first_rank(fail(failure), topology)
        except Exception as error:
            caught.append((type(error).__name__, str(error)))
    calls: list[int] = []

    def make() -> dict[str, Tensor]:
        calls.append(topology.rank)
        return made()

    tensors = from_first_rank(make, topology)
    plain = from_first_rank(lambda: PLAIN, topology)
    same = {
        name: torch.equal(tensors[name], x) and tensors[name].dtype == x.dtype for name, x in made().items()
    }
    return {
        "caught": caught,
        "calls": calls,
        "same": same,
        "plain": plain == PLAIN,
        "together": [together(topology, failing) for failing in (set[int](), {2}, {1, 2}, {0})],
        "highest": [highest(topology.rank, topology), highest(-topology.rank, topology)],
    }


def together(topology: Topology, failing: set[int]) -> Any:
    """What each rank gets when the ranks ``failing`` cannot do their part."""

    def make() -> int:
        if topology.rank in failing:
            raise MissingInput("no model here") if topology.rank == 2 else ValueError("a bug")
        return topology.rank * 10

    try:
        return on_every_rank(make, topology)
    except Exception as error:
        return type(error).__name__, str(error)


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    return run_ranks(3, exchange)


def test_every_rank_gets_the_bits_of_rank_0(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert result["same"] == dict.fromkeys(made(), True)
        assert result["plain"]


def test_a_result_that_is_not_plain_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a set cannot be broadcast"):
        _packed({"a": {1}}, [])


def test_only_rank_0_makes_them(results: list[dict[str, Any]]) -> None:
    assert [result["calls"] for result in results] == [[0], [], []]


def test_an_error_of_rank_0_has_the_same_class_and_sentence_everywhere(results: list[dict[str, Any]]) -> None:
    ours = [(type(error).__name__, str(error)) for error in FAILURES if isinstance(error, ImaxError)]
    assert len(ours) == 5
    for result in results:
        assert result["caught"][:5] == ours


def test_an_unknown_error_reaches_the_others_with_its_name(results: list[dict[str, Any]]) -> None:
    assert results[0]["caught"][5:] == [("ValueError", "a bug"), ("KeyError", "'latents'")]
    for result in results[1:]:
        assert result["caught"][5:] == [
            ("ImaxError", "rank 0 failed: ValueError: a bug"),
            ("ImaxError", "rank 0 failed: KeyError: 'latents'"),
        ]


def test_what_fails_on_one_rank_fails_on_all_with_its_reason(results: list[dict[str, Any]]) -> None:
    missing, bug, told = (
        ("MissingInput", "no model here"),
        ("ValueError", "a bug"),
        "failed: ValueError: a bug",
    )
    assert [result["together"] for result in results] == [
        [0, missing, ("ImaxError", f"rank 1 {told}"), bug],
        [10, missing, bug, ("ImaxError", f"rank 0 {told}")],
        [20, missing, missing, ("ImaxError", f"rank 0 {told}")],
    ]


def test_the_highest_value_of_any_rank_is_known_to_all(results: list[dict[str, Any]]) -> None:
    assert all(result["highest"] == [2, 0] for result in results)


def test_a_world_of_one_just_makes_them() -> None:
    assert from_first_rank(made, ALONE).keys() == made().keys()
    assert highest(5, ALONE) == 5
    assert on_every_rank(lambda: 7, ALONE) == 7
    with pytest.raises(ValueError, match="a bug"):
        from_first_rank(fail(ValueError("a bug")), ALONE)
