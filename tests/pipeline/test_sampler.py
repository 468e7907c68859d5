"""The loop of a pass: Euler's method, resumable at any step; what is cached, carried and announced."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from samplers import given, pass_plan

from imax_dist.events import StepDone
from imax_dist.method.guidance import Step
from imax_dist.method.time_shift import shifted_sigmas
from imax_dist.pipeline.state import PassState

SIGMAS = shifted_sigmas(5, 3.0)
NATIVE = pass_plan(SIGMAS)


def run(x: torch.Tensor, velocity: Any, *, first: int = 0, **how: Any) -> torch.Tensor:
    return given(velocity, NATIVE).run(PassState(0, first, x), **how).latents


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
def test_resuming_at_a_step_gives_the_same_bits(rng: torch.Generator, first: int) -> None:
    def velocity(x: torch.Tensor, step: Step) -> torch.Tensor:
        return step.sigma * x.sin() + step.index

    start = torch.randn(1, 2, 4, 4, generator=rng)
    states = [PassState(0, 0, start)]
    whole = run(start, velocity, after_step=states.append)
    assert [state.step for state in states] == [0, 1, 2, 3, 4, 5]
    assert torch.equal(run(states[first].latents, velocity, first=first), whole)


def test_each_step_is_announced_with_its_sigma() -> None:
    events: list[Any] = []
    run(torch.zeros(1, 2, 4, 4), lambda x, _: x, listen=events.append, first=2)
    assert all(isinstance(event, StepDone) for event in events)
    assert [event.index for event in events] == [3, 4, 5]
    assert [event.sigma for event in events] == list(SIGMAS[2:5])
    assert all(event.stage == "native" and event.seconds >= 0 for event in events)


def test_latents_keep_their_precision_when_the_network_has_less() -> None:
    final = run(torch.ones(1, 2, 4, 4), lambda x, _: (x / 3).to(torch.bfloat16))
    assert final.dtype == torch.float32


def test_an_error_after_a_step_ends_the_loop_there() -> None:
    done: list[int] = []

    def after_step(state: PassState) -> None:
        done.append(state.step)
        if state.step == 2:
            raise InterruptedError("stop")

    with pytest.raises(InterruptedError, match="stop"):
        run(torch.zeros(1, 2, 4, 4), lambda x, _: x, after_step=after_step)
    assert done == [1, 2]


def test_skipped_steps_use_the_last_velocity_of_the_network() -> None:
    asked: list[int] = []

    def network(x: torch.Tensor, step: Step) -> torch.Tensor:
        asked.append(step.index)
        return torch.full_like(x, float(step.index))

    plan = pass_plan(shifted_sigmas(10, 1.0), number=1, start={"sigma": 0.6}, cache="strong")
    assert plan.skipped == {4, 5}
    states: list[PassState] = []
    given(network, plan).run(PassState(1, 0, torch.zeros(1, 1, 2, 2)), after_step=states.append)
    assert asked == [0, 1, 2, 3, 6, 7, 8, 9]
    kept = [state.cached.mean().item() for state in states if state.cached is not None]
    assert kept == [0, 1, 2, 3, 3, 3, 6, 7, 8, 9]


def test_nothing_is_kept_where_nothing_is_skipped_or_accelerated() -> None:
    states: list[PassState] = []
    run(torch.zeros(1, 1, 2, 2), lambda x, step: x * step.sigma, after_step=states.append)
    assert all((state.cached, state.carried, state.endpoints) == (None, None, ()) for state in states)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_an_accelerated_pass_follows_the_published_recursion(strength: float) -> None:
    """v~_i = v_i + beta (v~_(i-1) + vref_i - vref_(i-1) - v_i), beta = strength sigma / start sigma."""
    sigmas = (0.6, 0.45, 0.2, 0.0)
    generator = torch.Generator().manual_seed(0)
    velocities = torch.randn(3, 1, 2, 4, 4, dtype=torch.float64, generator=generator)
    images = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=generator)
    start = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=generator)
    plan = pass_plan(sigmas, number=1, reference={"kind": "per_step", "acceleration": strength})
    plan = replace(plan, reference_sigmas=sigmas[:-1])

    state = PassState(1, 0, start, reference=images)
    found = given(lambda _, step: velocities[step.index], plan).run(state).latents

    expected, before, reference_before = start.numpy(), np.zeros(()), np.zeros(())
    for index, sigma in enumerate(sigmas[:-1]):
        own, reference = velocities[index].numpy(), (expected - images[index].numpy()) / sigma
        if index:
            own = own + strength * sigma / 0.6 * (before + reference - reference_before - own)
        expected = expected + (sigmas[index + 1] - sigma) * own
        before, reference_before = own, reference
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_a_state_comes_back_from_its_tensors(rng: torch.Generator) -> None:
    one, two = torch.randn(2, 1, 2, 4, 4, generator=rng)
    state = PassState(2, 3, one, reference=two, endpoints=(one, two), carried=two)
    back = PassState.from_tensors(2, 3, state.to_tensors())
    assert (back.number, back.step, back.cached, back.pictures) == (2, 3, None, None)
    assert all(torch.equal(a, b) for a, b in zip(back.endpoints, (one, two), strict=True))
    assert back.to_tensors().keys() == {"latents", "reference", "endpoints", "carried"}
