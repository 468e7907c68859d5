"""``imax serve`` itself: a process with Ray, stopped and started again; its options; the page in Chromium."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from http_client import Client
from pictures import png_poster
from served import served, wait_until

from imax_dist.cli.main import main
from imax_dist.jobs.job import Job
from imax_dist.jobs.sizing import Host
from imax_dist.jobs.state import Failed, Queued
from imax_dist.pipeline.request import Request
from imax_dist.service.job_view import BASE
from imax_dist.service.settings import ServiceSettings

SMALL = {
    "prompt": "a red sun over the sea",
    "size": "128x128",
    "preset": "one_jump",
    "steps": 2,
    "native_steps": 2,
}
LONG = {**SMALL, "steps": 50, "native_steps": 50}


def serve(*options: str) -> int:
    return main(["serve", *options])


def test_a_token_is_made_shown_once_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path)]
    assert serve(*out, "--add-token", "shop", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["token"].startswith("imax_")
    assert serve(*out, "--check") == 0
    assert "shop (submit)" in capsys.readouterr().out
    assert serve(*out, "--revoke-token", "shop") == 0
    assert serve(*out, "--revoke-token", "nobody") == 64
    assert "token 'nobody' does not exist" in capsys.readouterr().err


def test_a_token_may_have_limits_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path)]
    assert serve(*out, "--add-token", "shop", "--waiting", "2", "--per-minute", "12", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["waiting"], made["per_minute"]) == (2, 12)
    with served(tmp_path) as here:
        client = Client(here.base, made["token"])
        answers = [client("POST", "/v1/images/jobs", SMALL) for _ in range(3)]
        assert [answer.status for answer in answers] == [202, 202, 429]
        assert "and 2 are allowed" in answers[-1].message
        assert [client("GET", "/v1/images/jobs").status for _ in range(3)][-1] == 429
    assert serve(*out, "--add-token", "other", "--waiting", "0") == 64
    assert "waiting 0 must be above 0" in capsys.readouterr().err
    assert serve(*out, "--per-minute", "5") == 64
    assert "--per-minute is a limit of one token" in capsys.readouterr().err
    for name, said in (("", "one line of 1 to 100"), ("a\nb", "one line"), ("local", "without a token")):
        assert serve(*out, "--add-token", name) == 64
        assert said in capsys.readouterr().err


def test_a_check_says_what_it_would_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve("--out", str(tmp_path), "--port", "0", "--gangs", "2", "--check", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["gangs"] == "0 to 2 of 1 ranks"
    assert "embedded" in told["models"]
    assert "flux-dev: its weights are not all on this disk" in told["missing"]
    assert told["tokens"] == "none: answers this machine only"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--host", "0.0.0.0"], 64, "no token exists yet, and 0.0.0.0 can be reached from other machines"),
        (["--port", "99999"], 64, "'127.0.0.1':99999 is not an address to listen on"),
        (["--host", ""], 64, "is not an address to listen on"),
        (["--host", "192.0.2.1"], 73, "choose another --host"),
        (["--store", "mysql://x/y"], 64, "--store mysql://... is not a supported queue"),
        (["--store", "."], 64, ". is a folder, and a queue is a file"),
        (["--out", __file__], 73, "is a file, and a folder is needed there"),
        (["--config", "nothing"], 78, "service 'nothing' is not known"),
        (["--config", "no.yaml"], 66, "service file no.yaml does not exist"),
        (["--ranks", "0"], 78, "ranks 0 must be at least 1"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    assert serve("--out", str(tmp_path), "--check", *options) == code
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert serve("--out", str(tmp_path), "--check", "--port", port) == 73
    assert "choose another --port" in capsys.readouterr().err


@dataclass
class Command:
    """``imax serve`` as a process."""

    out: Path
    process: subprocess.Popen[str] | None = None
    base: str = ""

    def running(self) -> Client:
        """As the test before left it, or started now."""
        return self.start() if self.process is None else Client(self.base)

    def start(self) -> Client:
        log = (self.out.parent / "serve.log").open("a")
        options = ["--out", str(self.out), "--port", "0", "--gangs", "1", "--ray", "local"]
        command = [sys.executable, "-m", "imax_dist", "serve", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        self.base = self.process.stdout.readline().strip().rstrip("/")
        assert self.base.startswith("http://127.0.0.1:"), (self.out.parent / "serve.log").read_text()
        return Client(self.base)

    def stop(self) -> int:
        process, self.process = self.process, None
        assert process is not None
        process.send_signal(signal.SIGTERM)
        return process.wait(60)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    made = Command(tmp_path_factory.mktemp("serve") / "posters")
    yield made
    if made.process is not None:
        made.process.kill()


@pytest.mark.slow
@pytest.mark.machines
@pytest.mark.timeout(240)
def test_a_service_is_stopped_in_mid_render_with_exit_code_75(command: Command) -> None:
    ask = command.start()
    job = ask("POST", BASE, LONG, Idempotency_Key="one").json["id"]
    told = ask.events(f"{BASE}/{job}/events")
    next(data for name, data in told if name == "progress" and data["step"] > 2)
    told.close()
    assert command.stop() == 75


@pytest.mark.slow
@pytest.mark.machines
@pytest.mark.timeout(240)
def test_started_again_a_service_goes_on_where_it_was(command: Command) -> None:
    """The job of the test before is queued: done, with one attempt more."""
    ask = command.start()
    job = ask("POST", BASE, LONG, Idempotency_Key="one").json["id"]
    *_, (_, last) = ask.events(f"{BASE}/{job}/events")
    assert (last["state"], last["attempts"]) == ("done", 2)
    assert "stopped" in (command.out / job / "events.jsonl").read_text()


CHROMIUM = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with playwright.sync_playwright() as library:
        made = library.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


SHOTS = os.environ.get("IMAX_TEST_SHOTS")
"""A folder for pictures of the page, for people to look at."""


def visit(browser: Any, base: str, complaints: list[str], **context: Any) -> Any:
    opened = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **context})
    page = opened.new_page()
    page.set_default_timeout(60_000)
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("response", lambda r: complaints.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda r: complaints.append(r.url) if not r.url.startswith((base, "data:", "blob:")) else None,
    )
    page.goto(base + "/")
    return page


def shoot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png")


@pytest.mark.slow
@pytest.mark.machines
@pytest.mark.timeout(240)
def test_the_page_orders_approves_and_shows_posters(command: Command, browser: Any, tmp_path: Path) -> None:
    """In a real Chromium against a real server: by keyboard and mouse, on a desk and on a phone. Stopped
    when all is done, the server ends with 0."""
    ask, complaints = command.running(), []
    page = visit(browser, command.base, complaints)
    page.wait_for_selector("#order")
    before = len(ask("GET", f"{BASE}?state=done").json["data"])
    page.fill("#prompt", SMALL["prompt"])
    page.fill("#width", "256")
    page.fill("#height", "192")
    page.fill("#count", "2")
    page.check("#pdf")
    page.press("#prompt", "Control+Enter")
    page.wait_for_selector(".job[data-state=running] progress:not([hidden])")
    shoot(page, "queue")
    wait_until(lambda: page.locator(".job[data-state=done]").count() == before + 2)
    wait_until(lambda: page.locator(".job img").first.evaluate("image => image.naturalWidth > 0"))
    page.check("input[value=paper]")
    page.select_option("#paper-name", "A6")
    page.fill("#dpi", "40")
    page.fill("#count", "1")
    page.check("#approval")
    picture = next(command.out.glob("*/poster.png"))
    page.set_input_files("#picture", str(picture))
    page.click("#make")
    page.wait_for_selector(".job[data-state=proofed]")
    shoot(page, "proof")
    page.click(".job[data-state=proofed] button[data-act=approve]")
    wait_until(lambda: page.locator(".job[data-state=done]").count() == before + 3)
    page.locator(".job[data-state=done] .frame").nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[data-ready]")
    page.wait_for_timeout(600)
    shoot(page, "viewer")
    names = page.locator("#facts a").all_inner_texts()
    assert {"poster.png", "poster.pdf", "poster.recipe.json"} <= set(names)
    with page.expect_download() as download:
        page.locator("#facts a", has_text="poster.pdf").click()
    assert Path(download.value.path()).read_bytes().startswith(b"%PDF")
    page.keyboard.press("Escape")
    assert page.locator("#viewer[open]").count() == 0
    phone = visit(browser, command.base, complaints, color_scheme="dark", **PHONE)
    phone.wait_for_selector(".job img")
    assert phone.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert phone.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 23)"
    shoot(phone, "phone")
    docs = visit(browser, command.base, complaints)
    docs.goto(command.base + "/docs")
    docs.wait_for_selector("h3 code")
    shoot(docs, "docs")
    assert docs.locator("code", has_text=BASE).count() >= 5
    assert complaints == []
    assert ask("GET", "/healthz").status == 200
    assert command.stop() == 0
    assert "Traceback" not in (command.out.parent / "serve.log").read_text()


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_the_page_goes_back_to_the_oldest_job_and_to_the_newest(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path) as made:
        waiting = [Job(f"job-{index:03}", Request(f"poster {index}"), position=index) for index in range(170)]
        made.store.add((job, Failed("bad", "no", 1) if job.position == 3 else Queued()) for job in waiting)
        complaints: list[str] = []
        page = visit(browser, made.base, complaints)

        def shows(first: int, last: int) -> None:
            wait_until(lambda: shown() == [f"poster {first}", f"poster {last}"])

        def shown() -> list[str]:
            prompts: list[str] = page.locator(".job .prompt").all_inner_texts()
            return [prompts[0], prompts[-1]] if prompts else []

        shows(169, 110)
        for first, last in ((109, 50), (49, 0)):
            page.locator("#older").focus()
            page.keyboard.press("Enter")
            shows(first, last)
        assert page.locator("#older").is_hidden()
        page.reload()
        shows(49, 0)
        page.click("#newer")
        shows(109, 50)
        page.go_back()
        shows(49, 0)
        page.select_option("#state", "failed")
        shows(3, 3)
        assert page.url.endswith("?state=failed")
        assert complaints == []


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_picture_is_changed_by_words_or_enlarged_where_the_model_is_an_editor(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[str] = []
    monkeypatch.setattr("served.HERE", Host(cores=2, gpus=0, gpu="", memory=1e12))
    with served(tmp_path / "out", ServiceSettings(models=("embedded", "flux-kontext"))) as made:
        page = visit(browser, made.base, complaints)
        page.fill("#prompt", "make it winter")
        page.set_input_files("#picture", str(png_poster(tmp_path / "photo.png")))
        assert page.locator("#edit").is_hidden()
        page.select_option("#model", "flux-kontext")
        assert (page.locator("#edit").is_visible(), page.locator("#strength").is_visible()) == (True, False)
        shoot(page, "editor")
        for wanted in (True, False):
            page.locator("#edit").set_checked(wanted)
            page.click("#make")
            wait_until(lambda wanted=wanted: page.locator(".job").count() == 2 - wanted)
        requests = [job["request"] for job in made.client()("GET", BASE).json["data"]]
        told = [(request.get("edit"), request.get("strength")) for request in requests]
        assert told == [(None, 0.3), (True, None)]
        assert complaints == []


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_the_page_asks_for_a_token_where_there_is_one(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, tokens={"desk": "submit"}) as made:
        complaints: list[str] = []
        page = visit(browser, made.base, complaints)
        page.wait_for_selector("#enter:not([hidden])")
        page.fill("#token", "imax_wrong")
        page.press("#token", "Enter")
        wait_until(lambda: "not known" in page.locator("#enter .wrong").inner_text())
        page.fill("#token", made.secrets["desk"])
        page.press("#token", "Enter")
        page.wait_for_selector("#order")
        page.reload()
        page.wait_for_selector("#order")
        assert "imax_" not in page.evaluate("document.cookie + JSON.stringify(localStorage)")
        assert [text for text in complaints if "401" not in text] == []
