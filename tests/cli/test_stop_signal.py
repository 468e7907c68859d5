"""A signal ends a process whose main thread is in a call where no handler runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from imax_dist.cli import stop_signal
from imax_dist.errors import Preempted

BLOCKED = """
import hashlib, sys
from pathlib import Path
from imax_dist.cli import stop_signal

stop_signal.PATIENCE_S = float(sys.argv[2])
stop = stop_signal.StopSignal()
stop.at_once(lambda: Path(sys.argv[1]).write_text("the last step"))
print("ready", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes in OpenSSL
"""


def blocked(saved: Path, patience: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BLOCKED, str(saved), str(patience)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    return process


def test_the_last_step_is_saved_and_the_process_ends_with_the_code_of_a_stop(tmp_path: Path) -> None:
    process = blocked(tmp_path / "saved", patience=0.5)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == Preempted.exit_code
    assert (tmp_path / "saved").read_text() == "the last step"
    assert "run the same command again to resume" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    process = blocked(tmp_path / "saved", patience=600)
    process.send_signal(number)
    while not (tmp_path / "saved").exists():
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number


def test_a_signal_that_is_another_s_by_then_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener of an earlier command of this process still hears it."""
    before, heard = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    ended: list[int] = []
    monkeypatch.setattr(stop_signal.os, "_exit", ended.append)
    monkeypatch.setattr(stop_signal, "PATIENCE_S", 0.1)
    saved: list[int] = []
    try:
        stop_signal.StopSignal(quiet=True).at_once(lambda: saved.append(1))
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.5)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, heard)
    assert (saved, ended) == ([], [])


def test_a_signal_in_the_middle_of_a_write_is_told_after_it() -> None:
    """Python lets no thread enter a write to stderr twice: the handler's own is a RuntimeError then."""
    written: list[str] = []
    done = threading.Event()

    def write_line(text: str) -> None:
        if threading.current_thread() is threading.main_thread():
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")
        written.append(text)
        done.set()

    handlers = {number: signal.getsignal(number) for number in stop_signal.SIGNALS}
    try:
        stop = stop_signal.StopSignal(write_line=write_line)
        signal.raise_signal(signal.SIGTERM)
        assert stop()
        assert done.wait(10)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert written == ["stopping after this step; a second signal stops at once"]
