"""The Euler loop: exact where the velocity is constant, resumable at any step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from imax_dist.events import StepDone, ignore
from imax_dist.method.guidance import Step
from imax_dist.method.time_shift import shifted_sigmas
from imax_dist.pipeline.sampler import denoise

SIGMAS = shifted_sigmas(5, 3.0)


def nothing(step: int, x: torch.Tensor) -> None:
    """No checkpoint, no stop."""


def run(x: torch.Tensor, velocity: Any, **changes: Any) -> torch.Tensor:
    options = {"stage": "native", "listen": ignore, "after_step": nothing, **changes}
    return denoise(x, SIGMAS, velocity, **options)


def test_a_straight_path_ends_at_its_image(rng: torch.Generator) -> None:
    image, noise = (torch.randn(1, 2, 4, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    final = run(noise, lambda *_: noise - image)
    assert (final - image).abs().max() < 1e-14


def test_the_loop_is_eulers_method_on_the_given_sigmas(rng: torch.Generator) -> None:
    start = torch.randn(1, 2, 4, 4, generator=rng, dtype=torch.float64)
    expected = start.clone()
    for sigma, following in pairwise(SIGMAS):
        expected = expected + (following - sigma) * (sigma * expected.sin())
    assert torch.equal(run(start, lambda x, step: step.sigma * x.sin()), expected)


def test_every_step_knows_where_it_stands() -> None:
    seen: list[Step] = []

    def velocity(x: torch.Tensor, step: Step) -> torch.Tensor:
        seen.append(step)
        return torch.zeros_like(x)

    run(torch.zeros(1, 2, 4, 4), velocity)
    assert seen == [Step(sigma=SIGMAS[index], index=index, steps=5) for index in range(5)]


@pytest.mark.parametrize("first", range(6))
def test_going_on_from_a_step_gives_the_same_bits(rng: torch.Generator, first: int) -> None:
    def velocity(x: torch.Tensor, step: Step) -> torch.Tensor:
        return step.sigma * x.sin() + step.index

    after: dict[int, torch.Tensor] = {0: torch.randn(1, 2, 4, 4, generator=rng)}
    whole = run(after[0], velocity, after_step=after.__setitem__)
    assert list(after) == [0, 1, 2, 3, 4, 5]
    assert torch.equal(run(after[first], velocity, first=first), whole)


def test_each_step_is_announced_with_its_sigma() -> None:
    events: list[Any] = []
    run(torch.zeros(1, 2, 4, 4), lambda x, _: x, listen=events.append, stage="extrapolated", first=2)
    assert all(isinstance(event, StepDone) for event in events)
    assert [event.index for event in events] == [3, 4, 5]
    assert [event.sigma for event in events] == list(SIGMAS[2:5])
    assert all(event.stage == "extrapolated" and event.seconds >= 0 for event in events)


def test_latents_keep_their_precision_when_the_network_has_less() -> None:
    final = run(torch.ones(1, 2, 4, 4), lambda x, _: (x / 3).to(torch.bfloat16))
    assert final.dtype == torch.float32


def test_an_error_after_a_step_ends_the_loop_there() -> None:
    done: list[int] = []

    def after_step(step: int, x: torch.Tensor) -> None:
        done.append(step)
        if step == 2:
            raise InterruptedError("stop")

    with pytest.raises(InterruptedError, match="stop"):
        run(torch.zeros(1, 2, 4, 4), lambda x, _: x, after_step=after_step)
    assert done == [1, 2]
