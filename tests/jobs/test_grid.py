"""A grid: every combination a poster, named by its values, and one sheet to choose from."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from PIL import Image
from thread_gang import ThreadGang
from tiny_flux import make_tiny_flux

from imax_dist.cli.grid import grid_batch, write_sheet
from imax_dist.cli.main import main
from imax_dist.errors import BadConfig, BadValue, ImaxError
from imax_dist.jobs import batch as jobs_batch
from imax_dist.jobs.batch import Batch
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.manifest.grid import grid_cells, read_grid, shows_in_native
from imax_dist.jobs.settings import PoolSettings
from imax_dist.jobs.sizing import Host
from imax_dist.output.image.contact_sheet import GAP, LINE, SIDE, Shown, write_contact_sheet
from imax_dist.pipeline.request import Request

SEA = make_job(Request(prompt="a red sun", size="160x96"))


def test_every_combination_is_a_poster_named_by_its_values() -> None:
    cells = grid_cells([SEA], read_grid(["seed=3..4", "start.sigma=.2,.5"]))
    assert [cell.job.id for cell in cells] == [
        f"seed-{seed}_start.sigma-{sigma}" for seed in (3, 4) for sigma in ("0.2", "0.5")
    ]
    assert [cell.label for cell in cells][:2] == ["seed 3, start.sigma 0.2", "seed 3, start.sigma 0.5"]
    last = cells[-1].job.request
    assert (last.seed, last.method, last.size) == (4, {"start": {"sigma": 0.5}}, "160x96")


def test_each_line_of_a_manifest_is_multiplied() -> None:
    jobs = [make_job(SEA.request, name="a"), make_job(Request(prompt="a boat"), name="b")]
    cells = grid_cells(jobs, read_grid(["preset=imax,quick"]))
    assert [cell.job.id for cell in cells] == [
        "a_preset-imax",
        "a_preset-quick",
        "b_preset-imax",
        "b_preset-quick",
    ]
    assert cells[2].label == "b: preset imax"


def test_a_size_of_the_grid_takes_the_papers_place_and_the_other_way_round() -> None:
    paper = make_job(Request(prompt="a red sun", paper="A6", dpi=100))
    cells = grid_cells([paper], read_grid(["size=160x96,320x192"]))
    assert [(cell.job.request.size, cell.job.request.paper) for cell in cells] == [
        ("160x96", None), ("320x192", None),
    ]  # fmt: skip
    sizes = [cell.job.request.size for cell in grid_cells([paper], read_grid(["dpi=50,100"]))]
    assert sizes == ["207x291", "413x583"]


def test_a_scale_of_the_grid_takes_the_sizes_place() -> None:
    mine = make_job(Request(prompt="a red sun", guide="mine.png", size="160x96"))
    cells = grid_cells([mine], read_grid(["scale=2,3", "strength=.2,.5"]))
    found = [(cell.job.request.size, cell.job.request.scale, cell.job.request.strength) for cell in cells]
    assert found == [(None, 2.0, 0.2), (None, 2.0, 0.5), (None, 3.0, 0.2), (None, 3.0, 0.5)]


def test_values_that_no_id_can_hold_are_counted() -> None:
    cells = grid_cells([SEA], read_grid(["prompt=a red sun,a boat at sea"]))
    assert [cell.job.id for cell in cells] == ["prompt-1", "prompt-2"]
    assert [cell.label for cell in cells] == ["prompt a red sun", "prompt a boat at sea"]


def test_proofs_are_small_renders_where_native_pictures_are_alike() -> None:
    assert shows_in_native(read_grid(["seed=1..3"]))
    assert not shows_in_native(read_grid(["seed=1..3", "preset=imax,quick"]))
    batch = Batch(Path("out"), PoolSettings(), [SEA])
    made, cells, columns = grid_batch(batch, ["seed=1..3", "guidance.strength=.5,1"])
    assert (made.settings.proof, len(cells), columns) == ("small", 6, 2)
    assert grid_batch(batch, ["seed=1..20"])[0].settings.proof == "native"


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (["seed"], BadValue, "is not NAME=VALUES; write for example seed=1..8 strength=.2,.5"),
        (["seed=1,,2"], BadValue, "'' is not a single value"),
        (["seed=5..1"], BadValue, "a range must rise"),
        (["seed=1..900", "steps=1,2"], BadValue, "asks for 1800 posters; at most 1000"),
        (["seed=1", "seed=2"], BadValue, "names seed twice; put all its values into one list"),
        (["sede=1"], BadConfig, "unknown field 'sede'; did you mean 'seed'"),
        (["seed=one"], ImaxError, "seed"),
        (["lora=*a"], BadValue, "is not a single value"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(texts: list[str], error: type[ImaxError], message: str) -> None:
    with pytest.raises(error, match=message):
        grid_cells([SEA], read_grid(texts))


def test_the_sheet_shows_every_cell_with_its_words(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.new("RGB", (640, 384), (200, 30, 30)).save(picture)
    write_contact_sheet(
        tmp_path / "s.jpg",
        [Shown(picture, "seed 1"), Shown(None, "seed 2"), Shown(picture, "seed 3")],
        columns=2,
    )
    with Image.open(tmp_path / "s.jpg") as sheet:
        assert sheet.size == (2 * (SIDE + GAP) + GAP, 2 * (192 + LINE + GAP) + GAP)
        assert sheet.getpixel((GAP + 160, GAP + 96))[0] > 150  # type: ignore[index]
        assert sheet.getpixel((GAP + SIDE + GAP + 160, GAP + 96)) == pytest.approx((230, 230, 230), abs=3)
        words = sheet.crop((GAP, GAP + 192, GAP + SIDE, GAP + 192 + LINE)).convert("L")
        assert words.getextrema()[0] < 100


def test_a_cell_without_picture_is_a_grey_field(tmp_path: Path) -> None:
    cells = grid_cells([SEA], read_grid(["seed=1..2"]))
    sheet = write_sheet(tmp_path, cells, columns=2)
    assert sheet == tmp_path / "contact-sheet.jpg"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grid", "seed=1..2", "--count", "3"], "--grid makes a batch of proofs; omit --count"),
        (["--grid", "sede=1..2"], "unknown field 'sede'"),
    ],
)
def test_generate_refuses_before_any_work(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["generate", "a red sun", "--out", str(tmp_path / "sea.png"), *options]) in (64, 78)
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of one gang of one rank in a thread, on a machine that has room for no other."""
    host = Host(cores=1, gpus=0, gpu="", memory=8e9)
    monkeypatch.setattr(jobs_batch, "ray_cluster", lambda *_, **__: nullcontext())
    monkeypatch.setattr(jobs_batch, "RayGangs", lambda *_, **__: ThreadGang)
    monkeypatch.setattr(jobs_batch, "this_host", lambda: host)
    monkeypatch.setattr(jobs_batch, "ray_hosts", lambda: [host])


@pytest.mark.slow
def test_a_grid_becomes_proofs_a_sheet_and_the_approved_poster(
    one_thread: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(make_tiny_flux(tmp_path / "tiny"))
    Image.effect_mandelbrot((80, 48), (-2, -1, 1, 1), 60).convert("RGB").save(tmp_path / "mine.png")
    asked = ["upscale", str(tmp_path / "mine.png"), "--model", model, "--size", "160x96", "--out"]
    assert main([*asked, str(tmp_path / "sea.png"), "--grid", "seed=1..2", "strength=.3,.8"]) == 0
    told = capsys.readouterr().out
    out = tmp_path / "sea"
    assert "4 proofed" in told
    assert f"choose: imax approve {out} ID ...; then: imax batch --out {out}" in told
    ids = [f"seed-{seed}_strength-{strength}" for seed in (1, 2) for strength in (0.3, 0.8)]
    pictures = [Image.open(out / name / "proof.png").copy() for name in ids]
    assert {picture.size for picture in pictures} == {(128, 80)}, "1.5 x native, in the poster's shape"
    assert len({picture.tobytes() for picture in pictures}) == 4, "the values show"
    with Image.open(out / "contact-sheet.jpg") as sheet:
        assert sheet.size == (2 * (128 + GAP) + GAP, 2 * (80 + LINE + GAP) + GAP)
    assert main(["approve", str(out), "seed-2_strength-0.3"]) == 0
    assert main(["batch", "--out", str(out), "-q"]) == 0
    posters = [path.parent.name for path in out.glob("*/poster.png")]
    assert posters == ["seed-2_strength-0.3"]
