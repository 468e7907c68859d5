from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from imax_dist.errors import BadValue
from imax_dist.study.metrics.artefacts import grid_strength, seam_strength, speckle
from imax_dist.study.metrics.bands import enlarge, high_band, layout_agreement, low_band
from imax_dist.study.metrics.edges import detail_correlation, match_edges
from imax_dist.study.metrics.frechet import cut_patches, frechet_distance
from imax_dist.study.metrics.repetition import horizons, repetitions
from imax_dist.study.metrics.spectrum import detail_against_truth, radial_power
from imax_dist.study.scenes import render, sample_scene

SCENES = [sample_scene(k) for k in range(8)]
NATIVE = [render(scene, 128, 128) for scene in SCENES]
TRUTH = [render(scene, 256, 256) for scene in SCENES]


def soft(native: npt.NDArray[Any], factor: int = 2) -> npt.NDArray[np.uint8]:
    """An enlargement without any new detail."""
    return np.clip(enlarge(native.astype(float), factor), 0, 255).round().astype(np.uint8)


def test_bands_add_up_to_the_picture_and_a_flat_one_has_no_high_band() -> None:
    picture = TRUTH[0].astype(float)
    assert np.allclose(high_band(picture, 2) + enlarge(low_band(picture, 2), 2), picture)
    assert not high_band(np.full((8, 8, 3), 7.0), 2).any()


def test_the_true_large_render_agrees_with_the_native_layout_and_another_scene_does_not() -> None:
    for k in range(8):
        assert layout_agreement(TRUTH[k], NATIVE[k]) > 24
        assert layout_agreement(TRUTH[k], NATIVE[k - 1]) < 17
    assert layout_agreement(np.kron(NATIVE[0], np.ones((2, 2, 1))), NATIVE[0]) == np.inf


def test_a_true_render_repeats_nothing_and_a_tiled_one_does() -> None:
    for scene, native, truth in zip(SCENES, NATIVE, TRUTH, strict=True):
        assert set(repetitions(truth, scene, native=native).values()) == {0}
    tiled = np.tile(NATIVE[0], (2, 2, 1))
    assert horizons(tiled) > horizons(NATIVE[0])
    assert sum(repetitions(tiled, SCENES[0], native=NATIVE[0]).values()) >= 2


def test_the_spectrum_of_a_sine_peaks_at_its_frequency() -> None:
    wave = np.sin(2 * np.pi * 0.25 * np.arange(128))[None, :, None] * np.ones((128, 1, 3))
    assert np.argmax(radial_power(wave * 100)) in (15, 16)


def test_detail_is_zero_for_the_truth_negative_for_an_enlargement_and_positive_for_noise() -> None:
    rng = np.random.default_rng(0)
    for truth, native in zip(TRUTH, NATIVE, strict=True):
        assert detail_against_truth(truth, truth, factor=2) == 0
        assert detail_against_truth(soft(native), truth, factor=2) < -0.3
        noisy = truth + rng.normal(0, 40, truth.shape)
        assert detail_against_truth(noisy, truth, factor=2) > 0.3


def test_detail_correlates_with_the_truth_only_in_the_right_place() -> None:
    for truth in TRUTH:
        assert detail_correlation(truth, truth, factor=2) > 0.999
        assert detail_correlation(np.roll(truth, 5, axis=1), truth, factor=2) < 0.6


def test_edges_match_within_a_pixel_and_not_beyond() -> None:
    for truth in TRUTH:
        assert match_edges(np.roll(truth, 1, axis=1), truth).f1 > 0.9
        assert match_edges(np.roll(truth, 8, axis=1), truth).f1 < 0.75
    assert match_edges(np.zeros((64, 64, 3)), TRUTH[0][:64, :64]).precision == 0


def test_a_token_grid_is_detected_and_true_renders_have_none() -> None:
    for truth in TRUTH:
        marked = truth.astype(float)
        marked[::16] += 6
        marked[:, ::16] += 6
        assert grid_strength(marked) > 3 * grid_strength(truth) + 0.5


def test_a_seam_is_detected_where_it_is() -> None:
    for truth in TRUTH:
        torn = truth.astype(float)
        torn[64:] += 8
        assert seam_strength(torn, [64]) > seam_strength(truth, [64]) + 1
    with pytest.raises(BadValue, match="must lie 3 pixels inside"):
        seam_strength(TRUTH[0], [1])


def test_speckle_counts_single_pixels() -> None:
    picture = np.full((50, 50, 3), 100.0)
    picture[10::10, 10::10] = 200
    assert np.isclose(speckle(picture), 16 / 2500)
    assert max(speckle(truth) for truth in TRUTH) < 0.01


def test_frechet_distance_is_that_of_the_gaussians() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(4000, 3))
    assert frechet_distance(data, data) < 1e-9
    assert np.isclose(frechet_distance(data + np.array([2, 0, 0]), data), 4)
    spread, shift = np.trace(np.cov(data.T)), np.square(data.mean(0)).sum()
    assert np.isclose(frechet_distance(3 * data, data), 4 * spread + 4 * shift)


def test_patches_come_from_the_same_places_of_equal_sizes() -> None:
    ours, again = cut_patches(TRUTH[0], seed=1), cut_patches(TRUTH[0], seed=1)
    assert np.array_equal(ours, again)
    assert ours.shape == (16, 32, 32, 3)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(BadValue, match="no whole 3x3 blocks"):
        low_band(TRUTH[0], 3)
    with pytest.raises(BadValue, match="not a whole multiple of the native"):
        layout_agreement(TRUTH[0], NATIVE[0][:100])
    with pytest.raises(BadValue, match="differ; render the same size"):
        detail_against_truth(TRUTH[0], NATIVE[0], factor=2)
    with pytest.raises(BadValue, match="more rows than these"):
        frechet_distance(np.zeros((3, 4)), np.zeros((9, 4)))
    with pytest.raises(BadValue, match="smaller than 32 px"):
        cut_patches(np.zeros((16, 40, 3)))
