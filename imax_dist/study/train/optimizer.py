"""Muon for matrices and convolutions, AdamW for the rest.

Muon replaces a matrix's momentum by its nearest orthogonal matrix, found with a few Newton-Schulz
steps (K. Jordan et al., 2024, kellerjordan.github.io/posts/muon); updates are scaled to AdamW's
typical size (J. Liu et al., arXiv 2502.16982, Sec. 2.2), so that one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from imax_dist.study.train.precision import product_dtype

_QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of the Newton-Schulz iteration of the Muon page


def orthogonal(matrix: torch.Tensor, *, steps: int = 5) -> torch.Tensor:
    """About U V^T of ``matrix`` = U S V^T, (rows, columns); singular values land in 0.7..1.2."""
    a, b, c = _QUINTIC
    x = matrix.to(product_dtype(matrix.device)) / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    nearest: torch.Tensor = (x.T if tall else x).to(matrix.dtype)
    return nearest


def split_parameters(
    named: Iterable[tuple[str, torch.nn.Parameter]], *, rate: float, decay: float, skip: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Two groups: hidden matrices and kernels, and all else (vectors, embeddings, names in ``skip``)."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in named:
        plain = parameter.ndim < 2 or any(part in name for part in skip)
        (others if plain else matrices).append(parameter)
    shared = {"lr": rate, "initial_lr": rate, "decay": decay}
    return [{"params": matrices, "muon": True, **shared}, {"params": others, "muon": False, **shared}]


class Muon(torch.optim.Optimizer):
    """Groups with ``muon`` true get orthogonalised momentum, the others AdamW."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
    ) -> None:
        super().__init__(groups, {"momentum": momentum, "betas": betas, "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            update = self._matrix if group["muon"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["decay"])
                parameter.sub_(update(parameter, parameter.grad, group), alpha=group["lr"])

    def _matrix(self, parameter: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        mean: torch.Tensor = state["mean"].lerp_(grad, 1 - group["momentum"])
        ahead = grad.lerp(mean, group["momentum"])  # Nesterov
        flat = orthogonal(ahead.reshape(len(ahead), -1))
        size: float = 0.2 * max(flat.shape) ** 0.5
        return (size * flat).view_as(parameter)

    def _adam(self, parameter: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        state = self.state[parameter]
        if not state:
            state.update(mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
            state["count"] = torch.zeros(())
        first, second = group["betas"]
        state["count"] += 1
        count = float(state["count"])
        state["mean"].lerp_(grad, 1 - first)
        state["square"].lerp_(grad.square(), 1 - second)
        size = (state["square"] / (1 - second**count)).sqrt_().add_(group["eps"])
        update: torch.Tensor = state["mean"] / (1 - first**count) / size
        return update
