"""What a super-resolution network adds to a plan: its operations, on the rows a rank computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planner.works import cluster, flux

from imax_dist.planner.memory import network_bytes
from imax_dist.planner.poster import network_time, poster_time
from imax_dist.planner.split import Split
from imax_dist.super_resolution.realesrgan import shape_of

WEIGHTS = 16_697_987
"""Of realesrgan-x4plus."""


def test_flux_at_4096_px_is_quick_on_one_h100() -> None:
    """The best public figure is 31.9 s."""
    assert poster_time(flux(preset="quick"), Split(), cluster("1xH100")).total < 30


def test_a_network_costs_its_products_and_no_native_reference_costs_none() -> None:
    (one,) = flux(preset="quick").by_network
    assert (one.height, one.width) == (1024, 1024)
    conv, last = 64 * 64 * 9 + 64, 3 * 64 * 9 + 3
    tail = 2 * (4 * conv + 16 * (conv + conv + last))
    trunk = 2 * (WEIGHTS - 3 * conv - last)
    assert one.flops == pytest.approx(trunk + tail)
    work = flux(preset="quick")
    seconds = one.flops * 1024**2 / cluster().hardware.rates_of("bfloat16").convolution.at(64)
    assert network_time(work, Split(), cluster()) == pytest.approx(seconds)
    assert flux().by_network == ()
    assert network_time(flux(), Split(), cluster()) == 0.0
    assert network_bytes(flux(), Split()) == 0.0


def test_each_rank_computes_the_rows_that_the_network_sees() -> None:
    reach = shape_of("realesrgan-x4plus").trunk_reach
    (one,) = flux(preset="quick").by_network
    assert reach == one.reach == 347
    assert [one.rows(ranks) for ranks in (1, 2, 8)] == [1024, 1024, 128 + 2 * 347]
    work = replace(flux(preset="quick"), by_network=(one._replace(height=4096),))
    alone, shared = (network_bytes(work, Split(ulysses=ranks)) for ranks in (1, 8))
    assert shared / alone == pytest.approx((512 + 694) / 4096)
