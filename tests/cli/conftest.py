"""The command run in this process, with its exit code and what it printed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny_flux import make_tiny_flux

from imax_dist.cli.main import main


class Outcome(NamedTuple):
    """Exit code, stdout and stderr of one command."""

    code: int | str | None
    out: str
    err: str


@pytest.fixture
def imax(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Outcome]]:
    """``imax("generate", "a red sun", "--out", path)``; signal handlers are put back afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code: int | str | None = main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code
        return Outcome(code, *capsys.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model")
