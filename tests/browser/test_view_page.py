"""The page in a real Chromium, from disk: it lists, opens, zooms, slides, and says nothing on the console."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_folders import done_job, failed_job, job, native

from imax_dist.output.web.page import write_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
CHROMIUM = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
}
SECOND_PICTURE = "#viewer[data-ready='2']"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five posters: two to compare, one large enough for tiles, one failed, one waiting."""
    out = tmp_path_factory.mktemp("posters")
    native(done_job(out, "a-sea", prompt="a red sun over the sea"))
    done_job(out, "b-direct", prompt="a red sun over the sea", preset="direct")
    done_job(out, "c-large", prompt="a <i>large</i> one & 海", height=1200, width=1900)
    failed_job(out, "d-bad", "CUDA out of memory")
    job(out, "e-later")
    write_page(out)
    return out


LATE_TILE = "Ignoring tile %s loaded before reset"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as library:
        browser = library.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def wait_until(page: Any, holds: Callable[[], bool]) -> None:
    """A busy machine shows what a key or a click asked for a second later; 15 s are too late."""
    for _ in range(300):
        if holds():
            return
        page.wait_for_timeout(50)
    assert holds()


def complains(message: Any) -> bool:
    """All but OpenSeadragon's remark that a tile came after the next poster was opened."""
    return message.type in ("error", "warning") and not message.text.startswith(LATE_TILE)


def failed(request: Any) -> bool:
    """All but what the page itself gave up, such as the recipe of a poster that was left at once."""
    return request.failure != "net::ERR_ABORTED"


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """``visit(folder, "#id")`` opens the page; at the end nothing may have been said on the console."""
    complaints: list[str] = []
    contexts = []

    def open_page(out: Path, fragment: str = "", **context: Any) -> Any:
        contexts.append(chromium.new_context(**{**DESKTOP, **context}))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda m: complaints.append(m.text) if complains(m) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda r: complaints.append(f"failed: {r.url}") if failed(r) else None)
        page.on("request", lambda r: complaints.append(r.url) if r.url.startswith("http") else None)
        page.goto((out / "index.html").as_uri() + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def colour_at(page: Any, x_share: float, y_share: float = 0.5) -> tuple[int, int, int]:
    """The colour of the picture on screen, from a screenshot, so that a tainted canvas does not matter."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(page.locator("#zoom").screenshot())) as shot:
        colour = shot.convert("RGB").getpixel((int(shot.width * x_share), int(shot.height * y_share)))
    return tuple(colour)  # type: ignore[arg-type, return-value]


def test_the_sheet_lists_every_poster(visit: Open, folder: Path) -> None:
    page = visit(folder)
    assert page.locator(".card").count() == 5
    assert page.locator("#summary").inner_text() == "5 posters: 3 done, 1 failed, 1 queued"
    first = page.locator(".card").first.inner_text()
    for part in ("a red sun over the sea", "300x200", "seed 0", "9.5 s"):
        assert part in first
    assert page.locator(".card img").first.evaluate("image => image.naturalWidth") > 0


def test_the_sheet_can_be_searched(visit: Open, folder: Path) -> None:
    page = visit(folder)
    page.fill("#search", "SEA direct")
    assert page.locator(".card").count() == 1
    page.fill("#search", "")
    page.select_option("#state", "failed")
    assert page.locator(".card").count() == 1
    page.fill("#search", "nothing like it")
    assert page.locator(".nothing").is_visible()


def test_a_poster_opens_and_the_slider_cuts_it(visit: Open, folder: Path) -> None:
    """Left of the divider lies the native picture, right of it the poster: moving it changes what is seen."""
    page = visit(folder)
    page.locator(".card").first.click()
    page.wait_for_selector(SECOND_PICTURE)
    page.wait_for_timeout(600)  # OpenSeadragon's animation
    labels = page.locator("#left option").all_inner_texts()
    assert labels == ["extrapolated (imax)", "native (up-sampled)", "direct"]
    seen = []
    for value in (0, 1000):
        page.locator("#slider").fill(str(value))
        width = page.locator("#zoom").bounding_box()["width"]
        wanted = pytest.approx(width * value / 1000, abs=1)
        line = page.locator("#divider")
        wait_until(page, lambda: line.evaluate("line => parseFloat(line.style.left)") == wanted)  # noqa: B023
        page.wait_for_timeout(300)
        seen.append(page.locator("#zoom").screenshot())
    assert seen[0] != seen[1]
    page.select_option("#left", "2")
    page.wait_for_selector(SECOND_PICTURE)


def test_a_large_poster_zooms_to_its_pixels(visit: Open, folder: Path) -> None:
    wanted: list[str] = []
    page = visit(folder)
    page.on("request", lambda request: wanted.append(request.url))
    page.locator(".card").nth(2).click()
    page.wait_for_selector("#viewer[data-ready='1']")
    page.wait_for_timeout(800)
    before = page.locator("#zoom").screenshot()
    assert not any("/tiles/11/" in url for url in wanted), "the whole picture was loaded for an overview"
    for _ in range(5):
        page.keyboard.press("+")
    wait_until(page, lambda: any("/tiles/11/" in url for url in wanted))
    wait_until(page, lambda: page.locator("#zoom").screenshot() != before)
    page.keyboard.press("0")
    wait_until(page, lambda: abs(colour_at(page, 0.5)[0] - _pixel(before, 0.5)[0]) < 12)


def _pixel(shot: bytes, share: float) -> tuple[int, ...]:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(shot)) as image:
        return tuple(image.convert("RGB").getpixel((int(image.width * share), image.height // 2)))  # type: ignore


def test_everything_can_be_done_with_the_keyboard(visit: Open, folder: Path) -> None:
    page = visit(folder)
    page.locator("#state").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")

    def shows(name: str) -> None:
        wait_until(page, lambda: page.locator("#name").inner_text() == name)

    for name in ("a-sea", "b-direct", "c-large"):
        shows(name)
        page.keyboard.press("ArrowRight")
    shows("d-bad")
    page.keyboard.press("ArrowLeft")
    shows("c-large")
    page.keyboard.press("i")
    wait_until(page, page.locator("#facts").is_hidden)
    page.keyboard.press("Escape")
    wait_until(page, lambda: page.locator("#viewer[open]").count() == 0)
    assert page.evaluate("document.activeElement.dataset.id") == "c-large"


def test_the_recipe_and_its_command_lie_beside_the_picture(visit: Open, folder: Path) -> None:
    page = visit(folder, "#c-large", permissions=["clipboard-read", "clipboard-write"])
    facts = page.locator("#facts")
    assert "a <i>large</i> one & 海" in facts.inner_text()
    facts.locator("summary").click()
    recipe = page.frame_locator("#facts iframe").locator("body")
    assert '"imax-recipe/1"' in recipe.inner_text()
    page.locator("#copy").click()
    page.wait_for_function("document.querySelector('#copy').textContent === 'Copied'")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("imax generate --recipe ")
    assert copied.endswith("--out c-large.png")


def test_a_failed_poster_says_why(visit: Open, folder: Path) -> None:
    assert "CUDA out of memory" in visit(folder).locator(".card").nth(3).inner_text()
    page = visit(folder, "#d-bad")
    assert page.locator("#facts .wrong").inner_text() == "CUDA out of memory"
    assert page.locator("#compare").is_hidden()


def test_dark_mode_is_dark(visit: Open, folder: Path) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        page = visit(folder, color_scheme=scheme)
        grounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert grounds == {"light": "rgb(246, 245, 242)", "dark": "rgb(22, 22, 23)"}


def test_on_a_phone_nothing_is_wider_than_the_screen(visit: Open, folder: Path) -> None:
    page = visit(folder, **PHONE)
    wide = "document.documentElement.scrollWidth > window.innerWidth"
    assert page.evaluate(wide) is False
    page.locator(".card").first.tap()
    page.wait_for_selector(SECOND_PICTURE)
    assert page.locator("#facts").is_hidden()
    assert page.locator("#zoom").bounding_box()["height"] > 600
    page.locator("#about").tap()
    assert page.locator("#facts").is_visible()
    assert page.evaluate(wide) is False


def test_five_hundred_posters_are_listed_at_once(visit: Open, tmp_path: Path) -> None:
    """Only what is on or near the screen asks for its thumbnail; a quarter of them have one."""
    first, waiting = done_job(tmp_path, "p000"), job(tmp_path, "p001")
    for number in range(2, 500):
        shutil.copytree(first if number % 4 == 3 else waiting, tmp_path / f"p{number:03d}")
    write_page(tmp_path)
    page = visit(tmp_path)
    assert page.locator(".card").count() == 500
    loaded = page.evaluate("[...document.images].filter(i => i.complete && i.naturalWidth).length")
    assert 0 < loaded < 80
    page.locator(".card").last.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.card:last-child img').naturalWidth > 0")
