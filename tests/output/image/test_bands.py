"""Pictures in bands: cut, scaled, dithered and packed as if they were whole."""

from __future__ import annotations

import errno
import io
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from pictures import gradient
from PIL import Image

from imax_dist.errors import BadManifest
from imax_dist.geometry import ImageSize
from imax_dist.output.image import deflate
from imax_dist.output.image.bands import Band, Bands, bands_of_array, cropped, rebanded, to_unit
from imax_dist.output.image.dither import quantised, with_bits
from imax_dist.output.image.png import rows_of_stream, save_rows
from imax_dist.output.image.resample import scaled


def whole(bands: Bands) -> Band:
    return np.concatenate(list(bands.read()))


def floats(array: Band) -> Bands:
    return bands_of_array(array).changed(to_unit, bits=32)


@pytest.mark.parametrize("rows", [1, 7, 128, 200, 500])
def test_other_bands_hold_the_same_picture(rows: int) -> None:
    picture = gradient(300, 40)
    bands = list(rebanded(bands_of_array(picture), rows))
    assert (np.concatenate(bands) == picture).all()
    assert all(len(band) == rows for band in bands[:-1])


def test_a_window_is_a_slice() -> None:
    picture = gradient(300, 90)
    window = cropped(bands_of_array(picture), left=11, top=130, size=ImageSize(40, 150))
    assert (whole(window) == picture[130:280, 11:51]).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_what_a_file_can_hold_is_not_dithered(bits: int) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 2**bits, (300, 270, 3), dtype=f"u{bits // 8}")
    assert (whole(with_bits(floats(picture), bits)) == picture).all()


@pytest.mark.parametrize("level", [0.0, 100.25, 254.9, 255.0])
def test_what_lies_between_two_steps_becomes_both_in_proportion(level: float) -> None:
    flat = np.full((512, 512, 3), level / 255, np.float32)
    result = quantised(flat, 8)
    assert result.mean() == pytest.approx(level, abs=0.02)
    assert set(np.unique(result)) <= {int(level), min(int(level) + 1, 255)}


def test_a_slow_ramp_has_no_bands() -> None:
    """Rounding gives runs of one value; dithered columns keep the ramp's own means."""
    ramp = np.broadcast_to(np.linspace(0.5, 0.51, 600, dtype=np.float32)[None, :, None], (400, 600, 3))
    error = quantised(ramp, 8).mean(axis=0) - ramp[0] * 255
    assert abs(error).max() < 0.12
    assert abs(np.rint(ramp[0] * 255) - ramp[0] * 255).max() > 0.45


def test_the_dither_does_not_depend_on_the_bands() -> None:
    rng = np.random.default_rng(1)
    picture = rng.random((700, 300, 3), dtype=np.float32)
    pieces = [quantised(picture[top : top + 37], 8, first_row=top) for top in range(0, 700, 37)]
    assert (np.concatenate(pieces) == quantised(picture, 8)).all()


@pytest.mark.parametrize("size", [(500, 1001), (90, 130), (333, 40), (997, 701)])
def test_lanczos_in_bands_equals_pillow_on_the_whole(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    picture = (0.4 + 0.2 * rng.random((701, 333, 1))).astype(np.float32)
    ours = whole(scaled(bands_of_array(picture), ImageSize(*size)))[..., 0]
    theirs = np.asarray(Image.fromarray(picture[..., 0]).resize(size, Image.Resampling.LANCZOS))
    assert abs(ours - theirs).max() < 2e-6


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_packed_rows_unpack_to_themselves(bits: int, channels: int, cut: int) -> None:
    rng = np.random.default_rng(3)
    flat = rng.integers(0, 4, (260, 33, channels)).cumsum(axis=1).astype(f"u{bits // 8}")
    picture = flat * (1 if bits == 8 else 137)
    content = io.BytesIO()
    save_rows(bands_of_array(picture), content)
    data = content.getvalue()
    pieces = lambda: (data[at : at + cut] for at in range(0, len(data), cut))  # noqa: E731
    again = whole(rows_of_stream(bands_of_array(picture), pieces, where="p"))
    assert (again == picture).all()
    raw = np.frombuffer(zlib.decompress(data), np.uint8).reshape(260, -1)
    assert raw.shape[1] == 1 + 33 * channels * bits // 8, "PDF's predictor 15 takes these very rows"


@pytest.mark.parametrize("shape", [(16, 16, 3), (2000, 17, 4), (700, 999, 3)])
def test_any_number_of_threads_packs_the_same_bytes(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.random.default_rng(5).integers(0, 9, shape, dtype=np.uint8)
    made = {}
    for threads in (1, 2, 7):
        monkeypatch.setattr(deflate, "THREADS", threads)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: range(7), raising=False)
        made[threads] = b"".join(deflate.packed(bands_of_array(picture)))
    assert made[1] == made[2] == made[7]
    rows = np.frombuffer(zlib.decompress(made[1]), np.uint8).reshape(len(picture), -1)
    restored = rows[:, 1:].reshape(shape).cumsum(axis=1, dtype=np.uint8)
    assert (rows[:, 0] == 1).all()
    assert (restored == picture).all()


def test_a_torn_stream_is_refused() -> None:
    content = io.BytesIO()
    save_rows(bands_of_array(gradient(300, 50)), content)
    for data in (content.getvalue()[:-900], b"no zlib stream"):
        bands = rows_of_stream(
            bands_of_array(gradient(300, 50)), lambda data=data: iter([data]), where="p.pdf"
        )
        with pytest.raises(BadManifest, match=r"p\.pdf cannot be read"):
            whole(bands)


def test_an_error_while_rows_are_read_or_written_comes_out_as_it_is() -> None:
    def torn() -> Iterator[Band]:
        yield gradient(100, 50)
        raise BadManifest("the source is torn")

    class Full:
        def write(self, piece: bytes) -> int:
            raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(BadManifest, match="the source is torn"):
        save_rows(Bands(ImageSize(50, 300), 3, 8, torn), io.BytesIO())
    with pytest.raises(OSError, match="no space"):
        save_rows(bands_of_array(gradient(300, 50)), Full())
