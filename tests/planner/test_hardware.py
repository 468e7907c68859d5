"""Descriptions of devices and clusters: units, data sheets, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from planner.works import MEASURED

from imax_dist.config import named_configs
from imax_dist.errors import BadConfig, BadValue
from imax_dist.planner.cluster import parse_cluster
from imax_dist.planner.hardware import Curve, load_hardware, read_hardware
from imax_dist.planner.quantity import quantity


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("80 GB", "memory", 80e9),
        ("80 GiB", "memory", 80 * 2**30),
        ("989 TFLOP/s", "rate", 989e12),
        ("450 GB/s", "bandwidth", 450e9),
        ("400 Gbit/s", "bandwidth", 50e9),
        ("10us", "time", 1e-5),
        ("1.5e3 GB/s", "bandwidth", 1.5e12),
    ],
)
def test_a_quantity_is_read_in_base_units(text: str, kind: Any, value: float) -> None:
    assert quantity(text, kind, where="x") == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("450", "bandwidth", "450 has no unit; write for example 450 GB/s"),
        ("450 GB", "bandwidth", "'GB' is not a unit of bandwidth"),
        ("fast", "rate", "'fast' is not a quantity"),
        ("-3 GB", "memory", "is not a quantity"),
        ("0 GB", "memory", "must be above 0"),
    ],
)
def test_a_quantity_without_a_fitting_unit_is_refused(text: str, kind: Any, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        quantity(text, kind, where="x")


@pytest.mark.parametrize("name", ["H100", "H200", "A100", "L40S", "B200", "RTX4090", "RTX5090", "MI300X"])
def test_a_shipped_gpu_has_sane_numbers_and_a_source(name: str) -> None:
    gpu = load_hardware(name.lower())
    assert gpu.name == name
    assert 20e9 < gpu.memory < 200e9
    rates = gpu.rates_of("bfloat16")
    assert 1e14 < rates.attention.at(128) <= rates.linear.at(3072) < 2e15
    assert gpu.rates_of("float32").linear.at(1024) < rates.linear.at(1024)
    assert gpu.network.bandwidth < gpu.link.bandwidth < gpu.memory_bandwidth.at(64)
    assert "data sheet" in gpu.source
    assert not gpu.measured


def test_every_shipped_description_loads() -> None:
    assert {load_hardware(name).kind for name in named_configs("hardware")} == {"gpu", "cpu"}


def changed(path: str, value: Any) -> dict[str, Any]:
    mapping = copy.deepcopy(MEASURED)
    *parents, last = path.split(".")
    place = mapping
    for parent in parents:
        place = place[parent]  # type: ignore[assignment]
    place[last] = value
    return mapping


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("link.bandwidth", 300, "bench: link.bandwidth: 300 has no unit; write for example 450 GB/s"),
        ("network.latency", "50", "network.latency: 50 has no unit"),
        ("memory", "80 GB/s", "is not a unit of memory"),
        ("call", 30, "bench: call: 30 has no unit; write for example 10 us"),
        ("link.efficiency", 1.4, "link.efficiency 1.4 must be above 0 and at most 1"),
        ("peak", {"bfloat16": "1 TFLOP/s"}, "either peak and efficiency"),
        ("rates", {}, "either peak and efficiency"),
        ("rates.bfloat16", {"linear": "1 TFLOP/s"}, "must hold linear, attention and convolution"),
        ("rates.bfloat16.linear", {"wide": "1 TFLOP/s"}, "must be a rate, or rates by width"),
        ("link.speed", "3 GB/s", "unknown key 'speed'"),
        ("per_node", 0, "per_node 0 must be at least 1"),
    ],
)
def test_a_wrong_description_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        read_hardware(changed(path, value), where="bench")


def test_a_curve_meets_its_points_and_stays_between_them() -> None:
    curve = Curve(((64.0, 10.0), (1024.0, 50.0)))
    assert [curve.at(width) for width in (1, 64, 256, 1024, 9999)] == [10, 10, pytest.approx(30), 50, 50]


def test_a_link_takes_its_latency_a_message() -> None:
    link = read_hardware(MEASURED, where="bench").link
    assert link.seconds(3e9, 4) == pytest.approx(3e9 / 300e9 + 4e-5)
    assert link.seconds(0.0, 0) == 0.0


@pytest.mark.parametrize(
    ("text", "nodes", "per_node", "name"),
    [("8xH100", 1, 8, "H100"), ("2x8xA100", 2, 8, "A100"), ("h200", 1, 1, "H200"), ("16xcpu", 1, 16, "cpu")],
)
def test_a_cluster_is_read(text: str, nodes: int, per_node: int, name: str) -> None:
    found = parse_cluster(text)
    assert (found.nodes, found.per_node, found.hardware.name) == (nodes, per_node, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eight H100", "is not \\[NODESx\\]COUNTxNAME"),
        ("8xH10", "did you mean 'h100'"),
        ("0xH100", "counts must be at least 1"),
        ("16xH100", "a node holds 8 H100; write 2x8xH100"),
        ("8xmine.yaml", "hardware file mine.yaml does not exist"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        parse_cluster(text)


def test_a_dtype_without_rates_is_refused() -> None:
    with pytest.raises(BadValue, match="has no rates for float64, only for bfloat16"):
        read_hardware(MEASURED, where="bench").rates_of("float64")


def test_a_link_may_carry_less_in_small_messages() -> None:
    link = {"kind": "NVLink", "bandwidth": {1: "50 GB/s", 64: "300 GB/s"}, "latency": "10 us"}
    found = read_hardware({**MEASURED, "link": link}, where="bench").link
    assert found.bandwidth == 300e9
    assert found.seconds(64 * 2.0**20) == pytest.approx(64 * 2.0**20 / 300e9 + 10e-6)
    assert found.seconds(64 * 2.0**20, 64) == pytest.approx(64 * 2.0**20 / 50e9 + 64 * 10e-6)
    assert found.seconds(0.0, 3) == pytest.approx(30e-6)
