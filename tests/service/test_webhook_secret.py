"""The secret that signs webhooks: one of all servers on a folder, and the owner's alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imax_dist.errors import CannotWrite
from imax_dist.service import webhooks
from imax_dist.service.webhooks import webhook_secret

SERVERS = 8


def file_of(out: Path) -> Path:
    return out / "_service" / "webhook-secret"


def test_servers_that_start_together_have_the_same_secret(tmp_path: Path) -> None:
    together = threading.Barrier(SERVERS)

    def start(_: int) -> bytes:
        together.wait()
        return webhook_secret(tmp_path)

    with ThreadPoolExecutor(SERVERS) as pool:
        found = set(pool.map(start, range(SERVERS)))
    assert found == {file_of(tmp_path).read_bytes().strip()}
    assert len(found.pop()) == 64
    assert file_of(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_secret_that_another_server_has_not_written_yet_is_waited_for(tmp_path: Path) -> None:
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).touch()
    timer = threading.Timer(0.2, lambda: file_of(tmp_path).write_bytes(b"theirs\n"))
    timer.start()
    assert webhook_secret(tmp_path) == b"theirs"
    timer.join()


def test_an_empty_secret_signs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "WRITTEN_S", 0.0)
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).touch()
    with pytest.raises(CannotWrite, match="is empty; remove it"):
        webhook_secret(tmp_path)
