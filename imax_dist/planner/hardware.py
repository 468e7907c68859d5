"""One device and the links it talks over: data-sheet numbers with an efficiency, or measured rates.

``configs/hardware/*.yaml`` holds data sheets; ``imax doctor --measure FILE`` writes the same kind of file for
this machine. A rate may depend on the width of what is computed (small matrices reach less): it is then a
curve, ``{192: 60 GFLOP/s, 1024: 95 GFLOP/s}``.
"""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from imax_dist.config import load_named, load_yaml, named_configs, suggestion
from imax_dist.errors import BadConfig, BadValue
from imax_dist.planner.quantity import EXAMPLES, Kind, quantity
from imax_dist.planner.unknown import UnknownCost
from imax_dist.settings_mapping import from_mapping

MIB = 2.0**20
SAME_MEMORY = 0.2
"""Share by which the memory in a GPU's name may differ: there are an A100 of 40 GB and one of 80."""


@dataclass(frozen=True)
class Curve:
    """A rate by the width or the size of what is computed, read off lines over its logarithm."""

    points: tuple[tuple[float, float], ...]

    def at(self, width: float) -> float:
        """The rate of work ``width`` channels wide (head channels for attention)."""
        widths = [point[0] for point in self.points]
        place = bisect.bisect_left(widths, width)
        if place == 0:
            return self.points[0][1]
        if place == len(widths):
            return self.points[-1][1]
        (low, slow), (high, fast) = self.points[place - 1 : place + 1]
        share = math.log(width / low) / math.log(high / low)
        return slow + share * (fast - slow)


@dataclass(frozen=True)
class Rates:
    """What one device reaches in one dtype, FLOP/s."""

    linear: Curve
    attention: Curve
    convolution: Curve


@dataclass(frozen=True)
class Link:
    """From one rank to another: bytes a second as reached in one direction, seconds before the first byte."""

    kind: str
    rates: Curve
    """By MiB of a message."""
    latency: float

    @property
    def bandwidth(self) -> float:
        """Of the largest messages."""
        return self.rates.points[-1][1]

    def seconds(self, sent: float, messages: int = 1) -> float:
        """Time to send ``sent`` bytes in ``messages`` equal pieces, one after the other."""
        if not sent:
            return messages * self.latency
        return sent / self.rates.at(sent / max(1, messages) / MIB) + messages * self.latency


@dataclass(frozen=True)
class Hardware:
    """One device. Memory in bytes, bandwidths in bytes a second, times in seconds."""

    name: str
    kind: Literal["gpu", "cpu"]
    memory: float
    """What a device has (a GPU), or what all ranks of a host share (a CPU)."""
    rates: dict[str, Rates]
    """By dtype."""
    memory_bandwidth: Curve
    """As element-wise kernels reach it, by MiB of the tensor: new pages and full caches cost time."""
    weight_bandwidth: float
    """At which products read weights that no cache holds."""
    dispatch: float
    """Seconds to start one kernel; on a GPU kernels are started while others run."""
    call: float | None
    """Seconds of the host in one call of torch.distributed; None: not measured."""
    step: float
    """Seconds of a step outside the network, whatever the size; 0 where it was not measured."""
    warm_up: float
    """Seconds by which a process's first poster takes longer: kernels are loaded, chosen, compiled."""
    disk: float | None
    """Bytes a second at which weights come; None: their time is not told."""
    link: Link
    network: Link
    per_node: int
    reserve: float
    """Bytes of a rank that are not torch's: the driver, NCCL, the interpreter."""
    source: str
    measured: bool

    def rates_of(self, dtype: str) -> Rates:
        """Raises UnknownCost for a dtype this description holds no rates of."""
        if dtype not in self.rates:
            raise UnknownCost(
                f"hardware {self.name} has no rates for {dtype}, only for {', '.join(self.rates)}; "
                "choose one of these with --dtype"
            )
        return self.rates[dtype]


def load_hardware(name: str) -> Hardware:
    """A file of configs/hardware by name (``H100``, any case), or a YAML file by its path.

    Raises BadValue if there is none.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise BadValue(f"hardware file {name} does not exist; imax doctor --measure {name} writes one")
        return read_hardware(load_yaml(Path(name)), where=name)
    known = {each.lower(): each for each in named_configs("hardware")}
    if name.lower() not in known:
        listing = suggestion(name.lower(), list(known))
        raise BadValue(f"hardware {name!r} is not known; {listing}, or a file of imax doctor --measure")
    found = known[name.lower()]
    return read_hardware(load_named("hardware", found), where=f"configs/hardware/{found}.yaml")


def hardware_of_gpu(name: str) -> Hardware:
    """By torch's or Ray's name of a GPU, such as ``NVIDIA H100 80GB HBM3``. Raises UnknownCost."""
    words = re.split(r"[^A-Za-z0-9]+", name.upper())
    said = next((float(word[:-2]) for word in words if re.fullmatch(r"\d+GB", word)), None)
    for known in named_configs("hardware"):
        if known.upper() in words:
            found = load_hardware(known)
            if said is None or abs(1e9 * said / found.memory - 1) < SAME_MEMORY:
                return found
    raise UnknownCost(f"configs/hardware does not describe a {name or 'GPU of an unknown kind'}")


@dataclass(frozen=True)
class _LinkText:
    kind: str
    bandwidth: object
    latency: str
    efficiency: float = 1.0


@dataclass(frozen=True)
class _Efficiency:
    """What well-written kernels reach of the peak."""

    linear: float
    attention: float
    convolution: float
    elementwise: float


@dataclass(frozen=True)
class _HardwareText:
    name: str
    kind: Literal["gpu", "cpu"]
    memory: str
    memory_bandwidth: object
    dispatch: str
    link: _LinkText
    network: _LinkText
    reserve: str
    source: str
    weight_bandwidth: str | None = None
    call: str | None = None
    step: str | None = None
    warm_up: str | None = None
    disk: str | None = None
    measured: bool = False
    per_node: int = 8
    peak: dict[str, Any] = field(default_factory=dict)
    efficiency: _Efficiency | None = None
    rates: dict[str, Any] = field(default_factory=dict)


def read_hardware(mapping: dict[str, Any], *, where: str) -> Hardware:
    """A hardware file's content. Raises BadConfig for a missing key, a number without unit, or nonsense."""
    file = from_mapping(_HardwareText, _as_text(mapping), where=where)
    if bool(file.peak) == bool(file.rates) or bool(file.peak) != (file.efficiency is not None):
        raise BadConfig(f"{where}: give either peak and efficiency (a data sheet) or rates (measured)")
    if file.per_node < 1:
        raise BadConfig(f"{where}: per_node {file.per_node} must be at least 1")
    reached = (
        1.0
        if file.efficiency is None
        else _share(file.efficiency.elementwise, f"{where}: efficiency.elementwise")
    )
    bandwidth = _curve(file.memory_bandwidth, f"{where}: memory_bandwidth", kind="bandwidth", share=reached)
    return Hardware(
        name=file.name,
        kind=file.kind,
        memory=quantity(file.memory, "memory", where=f"{where}: memory"),
        rates=_rates(file, where),
        memory_bandwidth=bandwidth,
        weight_bandwidth=_weights(file, bandwidth, where),
        dispatch=quantity(file.dispatch, "time", where=f"{where}: dispatch"),
        call=quantity(file.call, "time", where=f"{where}: call") if file.call else None,
        step=quantity(file.step, "time", where=f"{where}: step") if file.step else 0.0,
        warm_up=quantity(file.warm_up, "time", where=f"{where}: warm_up") if file.warm_up else 0.0,
        disk=quantity(file.disk, "bandwidth", where=f"{where}: disk") if file.disk else None,
        link=_link(file.link, f"{where}: link"),
        network=_link(file.network, f"{where}: network"),
        per_node=file.per_node,
        reserve=quantity(file.reserve, "memory", where=f"{where}: reserve"),
        source=file.source.strip(),
        measured=file.measured,
    )


QUANTITIES = (
    "memory", "memory_bandwidth", "weight_bandwidth", "dispatch", "call", "step", "warm_up", "disk",
    "reserve", "bandwidth", "latency",
)  # fmt: skip


def _as_text(mapping: dict[str, Any]) -> dict[str, Any]:
    """Bare numbers where a quantity belongs become text, so that the missing unit is what is reported."""
    return {
        key: _as_text(value)
        if isinstance(value, dict)
        else (str(value) if key in QUANTITIES and isinstance(value, int | float) else value)
        for key, value in mapping.items()
    }


def _link(text: _LinkText, where: str) -> Link:
    share = _share(text.efficiency, f"{where}.efficiency")
    rates = _curve(text.bandwidth, f"{where}.bandwidth", kind="bandwidth", share=share)
    return Link(text.kind, rates, quantity(text.latency, "time", where=f"{where}.latency"))


def _rates(file: _HardwareText, where: str) -> dict[str, Rates]:
    if file.efficiency is None:
        return {dtype: _measured(own, f"{where}: rates.{dtype}") for dtype, own in file.rates.items()}
    found = {}
    for dtype, peak in file.peak.items():
        top = quantity(peak, "rate", where=f"{where}: peak.{dtype}")
        shares = {name: getattr(file.efficiency, name) for name in ("linear", "attention", "convolution")}
        curves = {
            name: Curve(((1.0, top * _share(share, f"{where}: efficiency.{name}")),))
            for name, share in shares.items()
        }
        found[dtype] = Rates(**curves)
    return found


def _measured(own: Any, where: str) -> Rates:
    if not isinstance(own, dict) or set(own) != {"linear", "attention", "convolution"}:
        raise BadConfig(f"{where} must hold linear, attention and convolution")
    return Rates(**{name: _curve(points, f"{where}.{name}") for name, points in own.items()})


def _weights(file: _HardwareText, bandwidth: Curve, where: str) -> float:
    if file.weight_bandwidth is None:
        return bandwidth.points[-1][1]
    return quantity(file.weight_bandwidth, "bandwidth", where=f"{where}: weight_bandwidth")


def _curve(points: Any, where: str, *, kind: Kind = "rate", share: float = 1.0) -> Curve:
    if not isinstance(points, dict):
        return Curve(((1.0, share * quantity(points, kind, where=where)),))
    if not points or not all(isinstance(width, int) and width > 0 for width in points):
        raise BadConfig(f"{where} must be a rate, or rates by width: {{1024: {EXAMPLES[kind]}}}")
    pairs = (
        (float(width), share * quantity(rate, kind, where=f"{where}.{width}"))
        for width, rate in points.items()
    )
    return Curve(tuple(sorted(pairs)))


def _share(value: float, where: str) -> float:
    if not 0.0 < value <= 1.0:
        raise BadConfig(f"{where} {value} must be above 0 and at most 1, a share of the peak")
    return value
