"""How long a rank may be silent. Apart because settings files are read without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

COMPILES = 5.0
"""Times as long for the first blocks of a network that is compiled."""


@dataclass(frozen=True)
class Silence:
    """Seconds without a sign of life; ``patience`` times as long for a poster that has hung before."""

    heartbeat: float = 6.0
    """A process that does not beat, within steps."""
    stage_heartbeat: float = 60.0
    """Elsewhere, where a library may hold the interpreter for long: loading, for one."""
    exchange: float = 5.0
    """Every rank waits for another."""
    factor: float = 12.0
    """A rank that computes: this many times its own usual time between marks, at least ``exchange``."""
    first_block: float = 60.0
    """The first two steps of a stage: kernels are planned, links opened."""
    stage: float = 60.0
    """A stage without steps in which nothing is computed, read or written."""
    patience: float = 1.0

    def where(self, *, compiled: bool) -> Silence:
        """The same, with time in the first steps for blocks that are ``compiled`` in them."""
        return replace(self, first_block=self.first_block * COMPILES) if compiled else self
