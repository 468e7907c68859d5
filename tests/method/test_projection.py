"""Low-pass filters against PyWavelets, NumPy and their own invariants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import pywt
import torch
from numpy.typing import NDArray

from imax_dist.geometry import AxisScale
from imax_dist.method import projection
from imax_dist.method.projection import PROJECTIONS, Projection

Array = NDArray[np.float64]

EVERY_FILTER = sorted(PROJECTIONS)
SHAPES = [(16, 16), (15, 17), (9, 32), (7, 5)]
SCALES = [AxisScale(4.0, 4.0), AxisScale(2.0, 3.0), AxisScale(1.7, 3.4), AxisScale(1.0, 1.0)]


def haar_low_band(x: Array, level: int) -> Array:
    """The level's Haar approximation with every detail set to zero, cropped to size."""
    low, *details = pywt.wavedec2(x, "haar", mode="symmetric", level=level, axes=(-2, -1))
    zeroed = [tuple(np.zeros_like(band) for band in bands) for bands in details]
    low_only = pywt.waverec2([low, *zeroed], "haar", mode="symmetric", axes=(-2, -1))
    return np.asarray(low_only[..., : x.shape[-2], : x.shape[-1]])


def latents(rng: torch.Generator, height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24), (64, 32)])
def test_block_mean_equals_haar_without_details(
    rng: torch.Generator, level: int, height: int, width: int
) -> None:
    x = latents(rng, height, width)
    ours = projection.block_mean(2**level, 2**level)(x)
    expected = torch.from_numpy(haar_low_band(x.numpy(), level))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(15, 17), (7, 8), (9, 5)])
def test_block_mean_equals_haar_level_one_on_odd_sizes(rng: torch.Generator, height: int, width: int) -> None:
    x = latents(rng, height, width)
    expected = torch.from_numpy(haar_low_band(x.numpy(), 1))
    torch.testing.assert_close(projection.block_mean(2, 2)(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "same"), [(16, True), (17, True), (18, True), (20, True), (19, False)])
def test_deeper_levels_differ_from_haar_only_in_a_cut_block_of_three(
    rng: torch.Generator, height: int, same: bool
) -> None:
    """A remainder of 1 or 2 pixels has one mean; of 3, repeated halving weighs the last double."""
    x = latents(rng, height, 16)
    ours = projection.block_mean(4, 4)(x)
    expected = torch.from_numpy(haar_low_band(x.numpy(), 2))
    torch.testing.assert_close(ours[:, :, :16], expected[:, :, :16], rtol=0, atol=1e-12)
    assert torch.allclose(ours, expected, rtol=0, atol=1e-12) is same


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_block_mean_is_the_mean_of_each_block_and_of_what_is_left(
    rng: torch.Generator, height: int, width: int
) -> None:
    x = latents(rng, height, width)
    expected = np.empty_like(x.numpy())
    for top in range(0, height, 3):
        for left in range(0, width, 2):
            window = (..., slice(top, top + 3), slice(left, left + 2))
            expected[window] = x.numpy()[window].mean(axis=(-2, -1), keepdims=True)
    ours = projection.block_mean(3, 2)(x)
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(0, 2), (2, 0), (-1, 1)])
def test_block_mean_refuses_empty_blocks(rows: int, columns: int) -> None:
    with pytest.raises(ValueError, match=r"blocks of at least 1 x 1, got"):
        projection.block_mean(rows, columns)


@pytest.mark.parametrize("name", EVERY_FILTER)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_every_filter_keeps_size_constants_and_is_linear(
    rng: torch.Generator, name: str, scale: AxisScale, height: int, width: int
) -> None:
    project = PROJECTIONS[name](scale)
    x, y = latents(rng, height, width), latents(rng, height, width)
    assert project(x).shape == x.shape
    constant = torch.full_like(x, 2.5)
    torch.testing.assert_close(project(constant), constant, rtol=0, atol=1e-12)
    combined = project(3.0 * x - 0.5 * y)
    torch.testing.assert_close(combined, 3.0 * project(x) - 0.5 * project(y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", EVERY_FILTER)
def test_every_filter_keeps_channels_and_images_apart(rng: torch.Generator, name: str) -> None:
    project = PROJECTIONS[name](AxisScale(4.0, 4.0))
    x = latents(rng, 16, 12)
    alone = project(x[1:, 2:])
    torch.testing.assert_close(project(x)[1:, 2:], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["matched_blocks", "haar_level_1", "fft_ideal"])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_block_mean_and_ideal_filter_applied_twice_change_nothing_more(
    rng: torch.Generator, name: str, height: int, width: int
) -> None:
    project = PROJECTIONS[name](AxisScale(4.0, 2.0))
    once = project(latents(rng, height, width))
    torch.testing.assert_close(project(once), once, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "butterworth"])
def test_smooth_filters_are_not_projections_in_the_strict_sense(rng: torch.Generator, name: str) -> None:
    project = PROJECTIONS[name](AxisScale(4.0, 4.0))
    once = project(latents(rng, 16, 16))
    assert not torch.allclose(project(once), once, atol=1e-3)


@pytest.mark.parametrize("name", EVERY_FILTER)
def test_every_filter_removes_more_of_a_checkerboard_than_of_a_slow_wave(name: str) -> None:
    project = PROJECTIONS[name](AxisScale(4.0, 4.0))
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    checkers = ((-1.0) ** (rows + columns))[None, None]
    slow = torch.cos(2 * torch.pi * rows / 64)[None, None]
    assert project(checkers).square().mean() < 1e-3
    assert project(slow).square().mean() > 0.9 * slow.square().mean()


@pytest.mark.parametrize(("height", "width"), [(12, 10), (9, 16)])
def test_gaussian_equals_convolution_written_out_in_numpy(
    rng: torch.Generator, height: int, width: int
) -> None:
    x = latents(rng, height, width)

    def blur(line: Array, deviation: float) -> Array:
        radius = int(np.ceil(3 * deviation))
        offsets = np.arange(-radius, radius + 1)
        kernel = np.exp(-(offsets**2) / (2 * deviation**2))
        padded = np.pad(line, radius, mode="reflect")
        return np.convolve(padded, kernel / kernel.sum(), mode="valid")

    expected = np.apply_along_axis(blur, -2, x.numpy(), 1.0)
    expected = np.apply_along_axis(blur, -1, expected, 2.0)
    torch.testing.assert_close(
        projection.gaussian(1.0, 2.0)(x), torch.from_numpy(expected), rtol=0, atol=1e-12
    )


def test_gaussian_of_zero_width_changes_nothing(rng: torch.Generator) -> None:
    x = latents(rng, 6, 7)
    torch.testing.assert_close(projection.gaussian(0.0, 0.0)(x), x, rtol=0, atol=0)


def _full_fft_filter(x: Array, rows: float, columns: float, response: Callable[[Array], Array]) -> Array:
    vertical = np.fft.fftfreq(x.shape[-2]) / 0.5 / rows
    horizontal = np.fft.fftfreq(x.shape[-1]) / 0.5 / columns
    distance = np.sqrt(vertical[:, None] ** 2 + horizontal[None, :] ** 2)
    return np.asarray(np.fft.ifft2(np.fft.fft2(x) * response(distance)).real)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_fft_filters_equal_the_full_complex_transform(rng: torch.Generator, height: int, width: int) -> None:
    x = latents(rng, height, width)
    cases: list[tuple[Projection, Callable[[Array], Array]]] = [
        (projection.fft_ideal(0.3, 0.45), lambda distance: (distance <= 1).astype(float)),
        (projection.butterworth(0.3, 0.45), lambda distance: 1 / (1 + distance**8)),
        (projection.butterworth(0.3, 0.45, order=2), lambda distance: 1 / (1 + distance**4)),
    ]
    for project, response in cases:
        expected = torch.from_numpy(_full_fft_filter(x.numpy(), 0.3, 0.45, response))
        torch.testing.assert_close(project(x), expected, rtol=0, atol=1e-12)


def test_the_ideal_filter_keeps_a_wave_at_the_very_cut_and_none_above() -> None:
    at_cut = torch.cos(2 * torch.pi * torch.arange(16.0) * 4 / 16).expand(1, 1, 16, 16)
    above = torch.cos(2 * torch.pi * torch.arange(16.0) * 5 / 16).expand(1, 1, 16, 16)
    project = projection.fft_ideal(0.5, 0.5)
    torch.testing.assert_close(project(at_cut), at_cut, rtol=0, atol=1e-6)
    torch.testing.assert_close(project(above), torch.zeros_like(above), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", EVERY_FILTER)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_filter_keeps_the_dtype(rng: torch.Generator, name: str, dtype: torch.dtype) -> None:
    x = latents(rng, 12, 12)
    project = PROJECTIONS[name](AxisScale(2.0, 2.0))
    low = project(x.to(dtype))
    assert low.dtype is dtype
    tolerance = 1e-5 if dtype is torch.float32 else 0.05
    torch.testing.assert_close(low.double(), project(x), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("scale", "block"),
    [
        (AxisScale(4.0, 4.0), (4, 4)),
        (AxisScale(2.0, 4.0), (2, 4)),
        (AxisScale(1.0, 1.0), (1, 1)),
        (AxisScale(2.4, 2.6), (2, 3)),
        (AxisScale(0.3, 0.3), (1, 1)),
    ],
)
def test_matched_block_is_one_native_latent_pixel_per_axis(scale: AxisScale, block: tuple[int, int]) -> None:
    assert projection.matched_block(scale) == block


@pytest.mark.parametrize(
    ("scale", "block"),
    [
        (AxisScale(1.25, 1.25), (2, 2)),
        (AxisScale(1.01, 1.0), (2, 1)),
        (AxisScale(1.46, 2.6), (2, 3)),
        (AxisScale(1.0, 1.0), (1, 1)),
        (AxisScale(0.8, 4.0), (1, 4)),
    ],
)
def test_an_axis_that_is_enlarged_at_all_has_detail_left(scale: AxisScale, block: tuple[int, int]) -> None:
    assert projection.matched_block(projection.with_detail_left(scale)) == block


def test_matched_blocks_at_four_times_is_haar_level_two(rng: torch.Generator) -> None:
    x = latents(rng, 32, 32)
    ours = PROJECTIONS["matched_blocks"](AxisScale(4.0, 4.0))(x)
    torch.testing.assert_close(ours, torch.from_numpy(haar_low_band(x.numpy(), 2)), rtol=0, atol=1e-12)


def test_matched_blocks_at_native_size_change_nothing(rng: torch.Generator) -> None:
    x = latents(rng, 7, 6)
    assert torch.equal(PROJECTIONS["matched_blocks"](AxisScale(1.0, 1.0))(x), x)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("level", "height", "width"), [(1, 12, 10), (2, 12, 16), (3, 16, 8)])
def test_a_haar_level_is_the_same_at_every_scale(
    rng: torch.Generator, scale: AxisScale, level: int, height: int, width: int
) -> None:
    x = latents(rng, height, width)
    expected = torch.from_numpy(haar_low_band(x.numpy(), level))
    ours = PROJECTIONS[f"haar_level_{level}"](scale)(x)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["matched_blocks", "gaussian", "fft_ideal", "butterworth"])
def test_a_cutoff_at_half_the_references_nyquist_is_the_filter_of_twice_the_scale(
    rng: torch.Generator, name: str
) -> None:
    x = latents(rng, 24, 32)
    cut = PROJECTIONS[name](AxisScale(2.0, 3.0).divided(0.5))
    assert torch.equal(cut(x), PROJECTIONS[name](AxisScale(4.0, 6.0))(x))


@pytest.mark.parametrize("name", ["matched_blocks", "gaussian", "fft_ideal", "butterworth"])
def test_filters_follow_the_scale_of_each_axis(name: str) -> None:
    """With scale 1 down and 8 across, a fine pattern survives down and vanishes across."""
    project = PROJECTIONS[name](AxisScale(1.0, 8.0))
    wave = torch.cos(2 * torch.pi * torch.arange(64.0) / 4)
    down, across = wave[None, None, :, None].expand(1, 1, 64, 64), wave.expand(1, 1, 64, 64)
    assert project(down).square().mean() > 5 * project(across).square().mean()
    assert project(across).square().mean() < 0.02
