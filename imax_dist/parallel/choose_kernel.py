"""Which kernel attends on this machine: checked for truth, timed, the same one on every rank."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from imax_dist.errors import BadConfig
from imax_dist.parallel.broadcast import from_first_rank, on_every_rank
from imax_dist.parallel.kernels import KERNELS, Kernel, Quality, candidates, verify
from imax_dist.parallel.topology import Topology
from imax_dist.wording import first_line

TIMED_RUNS = 3
FAILURES = (BadConfig, RuntimeError, ImportError, TypeError, AttributeError, ValueError, AssertionError)
"""What kernels' packages raise on a GPU, a head size or a dtype that they do not take."""
MARGIN = 1.05
"""A kernel further down the list must be faster by this, so that noise does not change the choice."""


@dataclass(frozen=True)
class KernelChoice:
    """``kernel`` None: torch's own choice (CPU). ``measured`` holds milliseconds, or why not, by name."""

    kernel: Kernel | None
    measured: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "cpu" if self.kernel is None else self.kernel.name

    def sentence(self) -> str:
        """``attention kernel flash3 (flash3 1.21 ms, flash 1.92 ms)``."""
        timed = ", ".join(f"{name} {result}" for name, result in self.measured.items())
        return f"attention kernel {self.name}" + (f" ({timed})" if timed else "")


@dataclass(frozen=True)
class AttentionShape:
    """What a kernel is chosen for."""

    heads: int
    head_dim: int
    dtype: torch.dtype
    tokens: int = 32768
    """Length that kernels are timed at: a poster's, not a thumbnail's, where the cost of a call decides."""


def choose_kernel(wanted: str, quality: Quality, topology: Topology, work: AttentionShape) -> KernelChoice:
    """``wanted`` is a name of KERNELS, or auto: about the fastest that is right. Every rank must call this.

    Rank 0 measures and the others follow, so that a picture does not mix kernels. Raises BadConfig if the
    kernel is unknown, not installed, not for this device, wrong, or inexact without ``quality: draft``.
    """
    if wanted == "auto" and topology.device.type == "cpu":
        return KernelChoice(None)

    def chosen() -> tuple[str, dict[str, str]]:
        results: dict[str, str] = {}
        kernel = _named(wanted, quality, topology.device, work) if wanted != "auto" else None
        if kernel is None:
            kernel, results = fastest(candidates(topology.device, work.dtype, quality), topology.device, work)
        return kernel.name, results

    name, measured = from_first_rank(chosen, topology)
    kernel = KERNELS[name]

    def require_installed() -> None:
        if not kernel.installed:
            raise BadConfig(
                f"parallel: kernel {kernel.name} needs {kernel.module}, which rank {topology.rank} "
                f"({socket.gethostname()}) lacks; install it on every host, or set kernel: auto"
            )

    on_every_rank(require_installed, topology)
    return KernelChoice(None if kernel.device == "cpu" else kernel, measured)


def _named(name: str, quality: Quality, device: torch.device, work: AttentionShape) -> Kernel:
    if name not in KERNELS:
        raise BadConfig(f"parallel: kernel {name!r} is not known; known: auto, {', '.join(KERNELS)}")
    kernel = KERNELS[name]
    if not kernel.exact and quality != "draft":
        raise BadConfig(f"parallel: kernel {name} is not exact; ask for it with quality: draft")
    if kernel.device != device.type or work.dtype not in kernel.dtypes:
        fitting = ", ".join(k.name for k in candidates(device, work.dtype, quality))
        kind = str(work.dtype).removeprefix("torch.")
        raise BadConfig(f"parallel: kernel {name} does not take {kind} on {device.type}; here: {fitting}")
    if not kernel.installed:
        raise BadConfig(f"parallel: kernel {name} needs the package {kernel.module}; or set kernel: auto")
    try:
        verify(kernel, device, work.dtype, head_dim=work.head_dim)
    except FAILURES as error:
        if isinstance(error, BadConfig):
            raise
        raise BadConfig(f"parallel: kernel {name} does not work here: {first_line(error)}") from error
    return kernel


def fastest(
    kernels: list[Kernel],
    device: torch.device,
    work: AttentionShape,
    *,
    timer: Callable[[Kernel, torch.device, AttentionShape], float] | None = None,
) -> tuple[Kernel, dict[str, str]]:
    """The first of the kernels that are right and about as fast as the fastest, and every kernel's result.

    One alone is not timed. ``timer`` gives a kernel's seconds. Raises BadConfig if none works.
    """
    measured: dict[str, str] = {}
    if len(kernels) == 1:
        return kernels[0], measured
    seconds: dict[str, float] = {}
    for kernel in kernels:
        try:
            verify(kernel, device, work.dtype, head_dim=work.head_dim)
            seconds[kernel.name] = (timer or call_seconds)(kernel, device, work)
            measured[kernel.name] = f"{1e3 * seconds[kernel.name]:.2f} ms"
        except FAILURES as error:
            measured[kernel.name] = f"refused: {first_line(error)}"
    if not seconds:
        raise BadConfig(f"parallel: no attention kernel works here: {measured}")
    enough = MARGIN * min(seconds.values())
    return next(kernel for kernel in kernels if seconds.get(kernel.name, math.inf) <= enough), measured


def call_seconds(kernel: Kernel, device: torch.device, work: AttentionShape) -> float:
    """Least seconds of one call on random tensors, the mean of an even length and an odd one.

    Patch shift has them in turn; what is over a block of an odd grid is one token, too.
    """
    even, odd = (_least_seconds(kernel, device, work, tokens) for tokens in (work.tokens, work.tokens + 1))
    return (even + odd) / 2


def _least_seconds(kernel: Kernel, device: torch.device, work: AttentionShape, tokens: int) -> float:
    shape = (1, tokens, work.heads, work.head_dim)
    q, k, v = (torch.randn(shape, device=device, dtype=work.dtype).transpose(1, 2) for _ in range(3))
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else _nothing
    seconds = []
    for _ in range(1 + TIMED_RUNS):
        wait()
        started = time.perf_counter()
        kernel.run(q, k, v)
        wait()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _nothing() -> None:
    """A CPU has nothing to wait for."""
