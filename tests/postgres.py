"""A PostgreSQL server of the tests' own: Debian's programs, a data folder of its own, a unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path

FOLDERS = "/usr/lib/postgresql"
"""Where Debian keeps its versions."""
NUMBERS = count(1)


class PostgresServer:
    """Started as an unprivileged user, as PostgreSQL wants it."""

    def __init__(self) -> None:
        self._user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.folder = Path(tempfile.mkdtemp(prefix="imax-pg-", dir="/tmp"))  # a socket's path has 107 bytes
        if os.geteuid() == 0:
            shutil.chown(self.folder, self._user)
        self.run("initdb", "-D", self._data, "-U", "imax", "-A", "trust", "-N", "--no-instructions")
        self.start()

    def start(self) -> None:
        options = f"-c listen_addresses='' -k {self.folder} -c fsync=off -c shared_buffers=16MB"
        self.run("pg_ctl", "-D", self._data, "-o", options, "-l", f"{self.folder}/log", "-w", "start")

    def stop(self) -> None:
        """At once, as a machine that lost its power."""
        self.run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test{next(NUMBERS)}"
        self.run("createdb", "-h", str(self.folder), "-U", "imax", name)
        return f"postgresql://imax@/{name}?host={self.folder}"

    def close(self) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str) -> str:
        command = [f"{programs()}/{program}", *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", self._user, "--", *command]
        ended = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/tmp"
        )
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    @property
    def _data(self) -> str:
        return f"{self.folder}/data"


def programs() -> Path | None:
    """The newest version's programs, if there are any."""
    found = sorted(Path(FOLDERS).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def missing() -> str:
    """Why there can be no server here; empty if there can."""
    if programs() is None:
        return f"no PostgreSQL in {FOLDERS} (Debian: apt-get install postgresql)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed"
    return ""
