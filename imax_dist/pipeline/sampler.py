"""A pass, step by step, on one page: blend, cache, shift, network, guidance, acceleration, Euler, region.

Elsewhere are what surrounds a region (region.py), the tables of positions (positions.py), and which
steps skip the network or move the patch grid (pass_plan.py).

Everything here acts on the whole latents, on every rank alike; only inside the network's forward pass do the
ranks share the tokens. What is cached is the network's velocity, before guidance, so that every step is
guided; what is accelerated is the guided one (DECISIONS 55). The native pass is the same loop without a
reference, on the positions that were trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from imax_dist.events import Listener, StepDone, ignore
from imax_dist.geometry import LatentGrid
from imax_dist.liveness.beacon import SILENT, Marks
from imax_dist.method.baselines.skip_residual import with_skip_residual
from imax_dist.method.flow import endpoint, euler_step, velocity_towards
from imax_dist.method.guidance import Step, accelerated_velocity, guided_velocity, reference_at
from imax_dist.method.patch_shift import shift_in, shift_out
from imax_dist.models.base import FlowModel
from imax_dist.models.cfg_execution import CfgExecution, two_passes
from imax_dist.models.conditioning import Conditioning
from imax_dist.models.momentum_guidance import NetworkVelocity
from imax_dist.models.token_shards import TokenSequence
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.mesh import single_rank
from imax_dist.pipeline.noise import pass_noise
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.positions import PositionTables
from imax_dist.pipeline.region import Outside
from imax_dist.pipeline.state import PassState
from imax_dist.shapes import Latents

AfterStep: TypeAlias = Callable[[PassState], None]
"""Called with where the pass stands: checkpoint, stop."""
Look: TypeAlias = Callable[[PassState, PassState], None]
"""Called with the states before and after a step."""


@dataclass(frozen=True)
class Sampler:
    """One pass of one poster on this rank; every rank of ``sequence`` has one and takes the same steps."""

    plan: PassPlan
    model: FlowModel
    conditioning: Conditioning
    sequence: TokenSequence
    tables: PositionTables
    noise: Latents | None
    """What skip residual noises the reference with: that which the pass starts from."""
    outside: Outside | None = None
    """What surrounds a region rendered again."""
    context: Latents | None = None
    """What an editor is shown, at the size of the pass."""

    @classmethod
    def of(
        cls,
        plan: PassPlan,
        model: FlowModel,
        conditioning: Conditioning,
        sequence: TokenSequence,
        *,
        context: Latents | None = None,
    ) -> Sampler:
        """With the position tables of the pass, which it makes once."""
        blends = plan.method.skip_residual and not plan.is_native
        noise = pass_noise(plan, model) if blends else None
        tables = PositionTables(plan, model)
        return cls(plan, model, conditioning, sequence, tables, noise, Outside.of(plan, model), context)

    @torch.no_grad()
    def run(
        self,
        state: PassState,
        *,
        listen: Listener = ignore,
        look: Look | None = None,
        after_step: AfterStep | None = None,
    ) -> PassState:
        """Every step from ``state`` to sigma 0; latents stay in float32 or better throughout."""
        plan = self.plan
        for index in range(state.step, plan.steps):
            started = time.perf_counter()
            step = Step(sigma=plan.sigmas[index], index=index, steps=plan.steps, start=plan.sigmas[0])
            before, state = state, self.with_outside(self.step(state, step), plan.sigmas[index + 1])
            seconds = time.perf_counter() - started
            skipped = index in plan.skipped
            listen(StepDone(plan.name, index + 1, plan.steps, step.sigma, seconds, skipped=skipped))
            if look is not None:
                look(before, state)
            if after_step is not None:
                after_step(state)
        return state

    def with_outside(self, state: PassState, sigma: float) -> PassState:
        """With the poster's own latents around a region rendered again, at the state's noise level."""
        if self.outside is None or state.reference is None:
            return state
        return replace(state, latents=self.outside.blend(state.latents, state.reference, sigma))

    def step(self, state: PassState, step: Step) -> PassState:
        """One step: x + (sigma_next - sigma) velocity; wholly on the shifted grid, if the recipe says so."""
        if self.plan.shift_at(step.index) != "step":
            return self.plain_step(state, step)
        shifted = self.plain_step(state.on_grid(shift_in), step)
        made = tuple(shift_out(one) for one in shifted.endpoints[len(state.endpoints) :])
        return replace(shifted.on_grid(shift_out), endpoints=(*state.endpoints, *made))

    def plain_step(self, state: PassState, step: Step) -> PassState:
        """One step on the grid that the state's latents are on."""
        plan, reference = self.plan, self.reference(state, step.sigma)
        x = self.blended(state.latents, reference, step)
        predicted, momentum = self.cached(state, x, step)
        guided = self.guided(x, predicted, reference, step)
        velocity, carried = self.accelerated(x, guided, reference, step, carried=state.carried)
        return replace(
            state,
            step=step.index + 1,
            latents=euler_step(x, velocity.to(x.dtype), step.sigma, plan.sigmas[step.index + 1]),
            endpoints=(*state.endpoints, endpoint(x, predicted, step.sigma)) if plan.keeps_endpoints else (),
            cached=predicted if plan.skipped else None,
            carried=carried,
            momentum=momentum,
        )

    def reference(self, state: PassState, sigma: float) -> Latents | None:
        """The reference at this noise level, if the pass is guided."""
        if state.reference is None:
            return None
        return reference_at(state.reference, self.plan.reference_sigmas, sigma)

    def blended(self, x: Latents, reference: Latents | None, step: Step) -> Latents:
        """DemoFusion's skip residual, if the recipe has it: the noised reference mixed into the latents."""
        if self.noise is None or reference is None:
            return x
        noise = self.noise if self.noise.shape == x.shape else shift_in(self.noise)
        return with_skip_residual(x, reference, noise, step.sigma)

    def cached(self, state: PassState, x: Latents, step: Step) -> NetworkVelocity:
        """The network's velocity, or the last one at a step that skips its forward pass."""
        if step.index not in self.plan.skipped:
            return self.shifted(x, step, state.momentum)
        assert state.cached is not None, "no pass begins with a skipped step, and checkpoints hold this"
        return NetworkVelocity(state.cached, state.momentum)

    def shifted(self, x: Latents, step: Step, momentum: Latents | None = None) -> NetworkVelocity:
        """The network's velocity, on the patch grid moved by half a patch at every other step."""
        if self.plan.shift_at(step.index) != "network":
            return self.network(x, step, momentum)
        moved = None if momentum is None else shift_in(momentum)
        return self.network(shift_in(x), step, moved).on_grid(shift_out)

    def network(self, x: Latents, step: Step, momentum: Latents | None = None) -> NetworkVelocity:
        """The forward pass: all ranks share its tokens and get the same velocity, in the dtype of ``x``."""
        grid = LatentGrid(height=x.shape[2], width=x.shape[3]).tokens(self.plan.spec.patch)
        velocity, momentum = self.model.velocity(
            x.to(self.model.dtype),
            step.sigma,
            self.conditioning,
            tables=self.tables.of_step(grid, step.sigma, x),
            sequence=self.sequence,
            guidance_scale=self.plan.guidance_scale,
            context=self.context_on(x),
            next_sigma=self.plan.sigmas[step.index + 1],
            index=step.index,
            momentum=momentum,
        )
        return NetworkVelocity(velocity.to(x.dtype), momentum)

    def context_on(self, x: Latents) -> Latents | None:
        """What an editor is shown, on the grid of ``x``: the plain one, or that of a shifted step."""
        context = self.context
        if context is None or context.shape[2:] == x.shape[2:]:
            return context
        return self.sequence.cache(("context", "shifted"), (context,), lambda: shift_in(context))

    def guided(self, x: Latents, velocity: Latents, reference: Latents | None, step: Step) -> Latents:
        """Projected flow: the velocity's low frequencies pulled to the reference, Eq. 7; all (B, C, H, W)."""
        weights = self.plan.weights(step)
        if reference is None or not weights.active:
            return velocity
        project = self.plan.project
        return guided_velocity(velocity, x, reference, step.sigma, project=project, weights=weights)

    def accelerated(
        self, x: Latents, velocity: Latents, reference: Latents | None, step: Step, *, carried: Latents | None
    ) -> tuple[Latents, Latents | None]:
        """HiFlow's acceleration, and what it carries to the next step; ``carried`` is from the one before.

        All (B, C, H, W); without a reference or a strength the velocity as it is, and None.
        """
        strength = self.plan.method.reference.acceleration
        if reference is None or strength == 0.0:
            return velocity, None
        towards = velocity_towards(x, reference, step.sigma)
        if carried is not None:
            beta = strength * step.sigma / step.start
            velocity = accelerated_velocity(velocity, towards, carried, beta)
        return velocity, velocity - towards


def sequence_alone(
    plan: PassPlan, cfg_execution: CfgExecution = two_passes, *, marks: Marks = SILENT
) -> TokenSequence:
    """The tokens of a pass that one rank makes by itself, as the native one."""
    mesh = single_rank(marks)
    return TokenSequence(mesh, TorchEngine(mesh), plan.copies, cfg_execution=cfg_execution)
