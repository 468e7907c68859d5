"""`imax view` and `imax report` as commands."""

from __future__ import annotations

import functools
import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from batch_folders import done_job, failed_job

from imax_dist.cli import view
from imax_dist.errors import CannotWrite

Imax = Callable[..., Any]


@pytest.fixture
def posters(tmp_path: Path) -> Path:
    done_job(tmp_path, "sea")
    failed_job(tmp_path, "bad", "out of memory")
    return tmp_path


@pytest.fixture
def address(posters: Path) -> Iterator[str]:
    """A running server of the folder; the handler is the command's own."""
    (posters / "batch.sqlite").write_bytes(b"secret")
    handler = functools.partial(view.PageHandler, directory=str(posters))
    server = ThreadingHTTPServer((view.LOOPBACK, 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://{view.LOOPBACK}:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def test_view_writes_a_page(imax: Imax, posters: Path) -> None:
    outcome = imax("view", posters, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) == {"page": str(posters / "index.html"), "posters": 2, "problems": []}


def test_view_of_a_folder_without_posters_is_reported(imax: Imax, tmp_path: Path) -> None:
    outcome = imax("view", tmp_path)
    assert (outcome.code, "holds no posters" in outcome.err) == (66, True)


def test_the_server_answers_with_the_page_and_its_files_only(imax: Imax, posters: Path, address: str) -> None:
    imax("view", posters)
    with urllib.request.urlopen(address + "/", timeout=10) as answer:
        assert b"Contact sheet" in answer.read()
    with urllib.request.urlopen(address + "/sea/poster.png", timeout=10) as answer:
        assert answer.read(4) == b"\x89PNG"
    for path in ("/batch.sqlite", "/sea/", "/../" + posters.name + "/batch.sqlite", "/nothing.png"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address + path, timeout=10)


def test_a_link_that_leads_out_is_not_served(posters: Path, address: str, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside") / "own.json"
    outside.write_text("{}")
    (posters / "link.json").symlink_to(outside)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + "/link.json", timeout=10)


def test_a_port_that_is_taken_is_reported(posters: Path, address: str) -> None:
    with pytest.raises(CannotWrite, match="cannot be opened: Address already in use; omit --port"):
        view.serve(posters, int(address.rpartition(":")[2]))


def test_report_writes_a_page_and_numbers(imax: Imax, posters: Path) -> None:
    outcome = imax("report", posters, "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    assert (told["states"], told["retries"]) == ({"done": 1, "failed": 1}, 1)
    assert "out of memory" in (posters / "report.html").read_text(encoding="utf-8")


def test_report_prints_a_pdf(imax: Imax, posters: Path) -> None:
    if not (shutil.which("chromium") and shutil.which("pdftotext")):
        pytest.skip("chromium or pdftotext is not installed")
    import subprocess

    outcome = imax("report", posters, "--to", posters / "report.pdf")
    assert outcome.code == 0, outcome.err
    command = ["pdftotext", "-layout", str(posters / "report.pdf"), "-"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "out of memory" in text
    assert "What was tried again" in text


def test_without_a_browser_a_pdf_report_is_refused(
    imax: Imax, posters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    outcome = imax("report", posters, "--to", posters / "report.pdf")
    assert (outcome.code, "printed by Chromium" in outcome.err) == (66, True)
    assert not (posters / "report.pdf").exists()
