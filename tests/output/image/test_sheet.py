"""Pictures side by side: the same part of each, at the pixels of the largest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import png_poster

from imax_dist.cli.main import main
from imax_dist.errors import BadValue
from imax_dist.output.image.png import read_pixels
from imax_dist.output.image.sheet import same_crop


def test_every_picture_shows_the_same_part_at_the_pixels_of_the_largest() -> None:
    large = np.arange(64 * 96 * 3, dtype=np.uint32).reshape(64, 96, 3).astype(np.uint8)
    small = np.full((16, 24, 3), 7, np.uint8)
    shown = same_crop([small, large], (8, 4, 40, 30))
    assert [picture.shape for picture in shown] == [(30, 40, 3)] * 2
    assert np.array_equal(shown[1], large[4:34, 8:48])
    assert (shown[0] == 7).all()


@pytest.mark.parametrize("crop", [(0, 0, 97, 10), (-1, 0, 10, 10), (0, 60, 10, 5), (0, 0, 0, 5)])
def test_a_crop_outside_the_largest_picture_is_refused(crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(BadValue, match="does not lie inside the largest picture, 96x64"):
        same_crop([np.zeros((64, 96, 3), np.uint8)], crop)


def test_pictures_of_another_shape_are_refused() -> None:
    with pytest.raises(BadValue, match="a picture of 50x64 has another shape than the largest, 96x64"):
        same_crop([np.zeros((64, 96, 3), np.uint8), np.zeros((64, 50, 3), np.uint8)], (0, 0, 8, 8))


def test_the_command_writes_one_sheet_and_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        png_poster(tmp_path / f"{name}.png", side, side) for name, side in (("native", 32), ("poster", 128))
    ]
    out = tmp_path / "sheet.png"
    assert main(["study", "sheet", *map(str, files), "--crop", "16,16,64,64", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert read_pixels(out).shape[1] == 2 * 64 + 4
    alone = read_pixels(out)
    asked = ["study", "sheet", *map(str, files), "--crop", "16,16,64,48", "--whole", "--out", str(out)]
    assert main([*asked, "--heads", "one, 32 px", "two, 128 px"]) == 0
    assert read_pixels(out).shape[1] == alone.shape[1]
    assert 64 + 4 + 48 < read_pixels(out).shape[0] < 64 + 4 + 48 + 30
    assert main([*asked, "--heads", "one"]) == 64
    assert "--heads has 1 for 2 pictures; give one for each" in capsys.readouterr().err
    assert main(["study", "sheet", str(files[0]), "--crop", "a,b", "--out", str(out)]) == 64
    assert "is not X,Y,W,H" in capsys.readouterr().err
