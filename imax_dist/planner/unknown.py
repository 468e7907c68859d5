"""What the planner cannot say."""

from __future__ import annotations

from imax_dist.errors import BadValue


class UnknownCost(BadValue):
    """A network or a device that no file describes: not wrong in itself, only not to be planned."""
