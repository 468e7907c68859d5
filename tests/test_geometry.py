"""Pixels, latents, tokens, and the size of the native guidance image."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imax_dist.errors import BadValue
from imax_dist.geometry import AxisScale, ImageSize, LatentGrid, TokenGrid, native_size


@pytest.mark.parametrize("text", ["1024x1536", "1024X1536", " 1024 x 1536 ", "1024×1536"])
def test_a_size_is_read_as_width_times_height(text: str) -> None:
    assert ImageSize.parse(text) == ImageSize(width=1024, height=1536)


def test_a_size_is_written_as_it_is_read() -> None:
    assert str(ImageSize.parse("2048x512")) == "2048x512"


@pytest.mark.parametrize("text", ["", "1024", "1024x", "x1024", "1024*1024", "-64x64", "64.5x64", "64x64px"])
def test_what_is_not_a_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadValue, match=r"is not WIDTHxHEIGHT in pixels; write for example 1024x1536"):
        ImageSize.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("15x64", r"size 15x64: the width is 15 px, but a side must be between 16 and 65536 px"),
        ("64x0", r"size 64x0: the height is 0 px"),
        ("65537x64", r"the width is 65537 px"),
        ("64x99999", r"the height is 99999 px"),
    ],
)
def test_sides_out_of_range_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        ImageSize.parse(text)


@pytest.mark.parametrize("text", ["16x16", "65536x16"])
def test_the_bounds_themselves_are_allowed(text: str) -> None:
    assert str(ImageSize.parse(text)) == text


def test_area_and_megapixels() -> None:
    size = ImageSize(4096, 2048)
    assert size.area == 8_388_608
    assert size.megapixels == pytest.approx(8.388608)


@pytest.mark.parametrize(
    ("size", "multiple", "padded"),
    [("1000x1001", 16, "1008x1008"), ("1024x512", 16, "1024x512"), ("17x16", 32, "32x32")],
)
def test_padding_goes_up_to_the_next_multiple(size: str, multiple: int, padded: str) -> None:
    assert str(ImageSize.parse(size).padded(multiple)) == padded


def test_tokens_are_whole_patches() -> None:
    assert LatentGrid(height=10, width=15).tokens(patch=2) == TokenGrid(height=5, width=7)
    assert TokenGrid(height=5, width=7).count == 35


def test_axis_scale_is_target_over_native_per_axis() -> None:
    scale = AxisScale.between(TokenGrid(128, 512), TokenGrid(64, 128))
    assert scale == AxisScale(height=2.0, width=4.0)


def test_linear_scale_is_the_root_of_the_token_ratio() -> None:
    target, native = TokenGrid(207, 293), TokenGrid(54, 76)
    expected = math.sqrt(target.count / native.count)
    assert AxisScale.between(target, native).linear == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("target", "native"),
    [
        ("4096x4096", "1024x1024"),
        ("2048x2048", "1024x1024"),
        ("4096x1024", "2048x512"),
        ("1024x4096", "512x2048"),
        ("3312x4688", "864x1216"),
        ("1536x1536", "1024x1024"),
        ("1408x1408", "1024x1024"),
    ],
)
def test_the_native_image_has_the_native_area_in_the_targets_shape(target: str, native: str) -> None:
    assert str(native_size(ImageSize.parse(target), 1024, 16)) == native


@pytest.mark.parametrize("target", ["1024x1024", "512x2048", "640x480"])
def test_a_target_no_larger_than_native_keeps_its_size(target: str) -> None:
    assert str(native_size(ImageSize.parse(target), 1024, 16)) == target


def test_a_small_target_is_padded_to_whole_tokens() -> None:
    assert str(native_size(ImageSize(500, 301), 1024, 16)) == "512x304"


SIDES = st.integers(min_value=256, max_value=16_384)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(width=SIDES, height=SIDES, native_side=st.sampled_from([128, 1024, 2048]))
def test_the_native_image_is_within_half_a_token_of_the_exact_shape(
    width: int, height: int, native_side: int
) -> None:
    target = ImageSize(width, height)
    if target.area <= native_side**2:
        assert native_size(target, native_side, 16) == target.padded(16)
        return
    native = native_size(target, native_side, 16)
    shrink = native_side / math.sqrt(target.area)
    for side, exact in ((native.width, width * shrink), (native.height, height * shrink)):
        assert side % 16 == 0
        assert side >= 16
        assert abs(side - exact) <= 8 + 1e-6 or side == 16
