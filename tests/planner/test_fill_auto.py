"""What the planner decides for ranks that a launcher has placed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.request import Request
from imax_dist.planner.fill_auto import fill_auto
from imax_dist.planner.hardware import hardware_of_gpu, load_hardware
from imax_dist.planner.unknown import UnknownCost

H100 = "NVIDIA H100 80GB HBM3"
ONE = [Request("a poster", size="4096x4096", model="flux-dev")]
AUTO = ParallelSettings(native="auto", compile="auto")


def test_one_poster_on_eight_gpus_has_its_native_picture_made_by_all() -> None:
    found = fill_auto(AUTO, ONE, gpu=H100, per_host=8, hosts=1)
    assert (found.native, found.compile, found.least_link_gb_s) == ("shared", "none", None)
    many = fill_auto(AUTO, ONE * 400, gpu=H100, per_host=8, hosts=1)
    assert (many.native, many.compile) == ("shared", "regional"), "it pays for compiling"


def test_ranks_on_two_hosts_are_refused_below_half_of_the_hardware_file_s_link() -> None:
    """As a JobSet starts them, where no pool planned anything."""
    found = fill_auto(ParallelSettings(), ONE, gpu=H100, per_host=8, hosts=2)
    assert found.least_link_gb_s == pytest.approx(load_hardware("H100").network.bandwidth / 2e9)
    own = replace(ParallelSettings(), least_link_gb_s=1.0)
    assert fill_auto(own, ONE, gpu=H100, per_host=8, hosts=2) == own
    assert fill_auto(ParallelSettings(), ONE, gpu="", per_host=1, hosts=2).least_link_gb_s is None


def test_a_model_that_is_still_to_be_downloaded_is_no_mistake() -> None:
    hub = [Request("a poster", model="some/hubid")]
    found = fill_auto(ParallelSettings(), hub, gpu=H100, per_host=8, hosts=2)
    assert found.least_link_gb_s == pytest.approx(load_hardware("H100").network.bandwidth / 2e9)


def test_a_gpu_of_another_memory_is_another_gpu() -> None:
    assert hardware_of_gpu("NVIDIA A100-SXM4-80GB").name == "A100"
    with pytest.raises(UnknownCost):
        hardware_of_gpu("NVIDIA A100-SXM4-40GB")


@pytest.mark.parametrize(("gpu", "per_host"), [("NVIDIA X1", 8), (H100, 1)])
def test_what_is_not_known_or_not_asked_stays(gpu: str, per_host: int) -> None:
    assert fill_auto(AUTO, ONE, gpu=gpu, per_host=per_host, hosts=1) == AUTO
    assert fill_auto(ParallelSettings(), ONE, gpu=gpu, per_host=per_host, hosts=1) == ParallelSettings()
