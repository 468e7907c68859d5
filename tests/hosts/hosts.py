"""Machines made of network namespaces: own addresses, a switch between them, cables that can be pulled.

Nothing leaves this machine: the namespaces have no way out of their switch.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
NETWORK = "192.0.2."
MOST = 8


class Host:
    """One namespace with one cable; programs run in it share the files of this machine."""

    def __init__(self, prefix: str, index: int) -> None:
        self.index = index
        self.name = f"{prefix}h{index}"
        self.switch = f"{prefix}sw"
        self.address = f"{NETWORK}{index + 1}"
        self.names = Path("/etc/netns") / self.name
        """What `ip netns exec` lays over /etc: the machines know each other by name, and no other."""

    def start(self, *command: object, log: Path, **variables: str) -> subprocess.Popen[bytes]:
        """Run a program there, stdout and stderr into ``log``."""
        environment = {
            **os.environ,
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "eth0",
            **variables,
        }
        with log.open("ab") as out:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *map(str, command)],
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pull_cable(self) -> None:
        ip("-n", self.switch, "link", "set", self.name, "down")

    def plug_cable(self) -> None:
        ip("-n", self.switch, "link", "set", self.name, "up")

    def sent_again(self) -> int:
        """TCP segments that this machine has sent more than once, for want of an answer."""
        names, values = (
            line.split()
            for line in ip("netns", "exec", self.name, "cat", "/proc/net/snmp").splitlines()
            if line.startswith("Tcp:")
        )
        return int(values[names.index("RetransSegs")])

    def kill_all(self) -> None:
        """Every process that still runs there."""
        for pid in ip("netns", "pids", self.name).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue

    def connect(self) -> None:
        """Make the namespace and plug it into the switch."""
        self.names.mkdir(parents=True)
        known = [f"{NETWORK}{k + 1} node{k}" for k in range(MOST)]
        (self.names / "hosts").write_text("\n".join(["127.0.0.1 localhost", *known, ""]))
        (self.names / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        ip("netns", "add", self.name)
        ip(
            "-n",
            self.name,
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "name",
            self.name,
            "netns",
            self.switch,
        )
        ip("-n", self.switch, "link", "set", self.name, "master", "br0", "up")
        for link in ("lo", "eth0"):
            ip("-n", self.name, "link", "set", link, "up")
        ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        ip(
            "-n", self.name, "route", "add", "default", "dev", "eth0"
        )  # Ray asks for the way out to learn its address


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """``count`` machines on one switch; all that runs there is killed at the end."""
    prefix = f"imax{os.getpid() % 100000}"
    made = [Host(prefix, index) for index in range(count)]
    ip("netns", "add", f"{prefix}sw")
    try:
        ip("-n", f"{prefix}sw", "link", "add", "br0", "type", "bridge")
        ip("-n", f"{prefix}sw", "link", "set", "br0", "up")
        for host in made:
            host.connect()
        yield made
    finally:
        for host in made:
            if Path(f"/run/netns/{host.name}").exists():
                host.kill_all()
                ip("netns", "delete", host.name)
            shutil.rmtree(host.names, ignore_errors=True)
        ip("netns", "delete", f"{prefix}sw")


def why_no_hosts() -> str:
    """Empty where network namespaces can be made; else the reason."""
    if shutil.which("ip") is None:
        return "no network namespaces: iproute2 is not installed"
    if shutil.which("imax", path=PROGRAMS) is None:
        return "imax is not installed beside this Python"
    try:
        with hosts(1):
            return ""
    except subprocess.CalledProcessError as error:
        return f"no network namespaces: {error.stderr.strip() or error}"


def ip(*words: str) -> str:
    """The output of `ip`. Raises CalledProcessError with what it said."""
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)
    return done.stdout


def wait_for(log: Path, words: str, *, process: subprocess.Popen[bytes], timeout_s: float = 120) -> None:
    """Return when ``log`` has these words."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace") if log.exists() else ""
        if words in text:
            return
        assert process.poll() is None, f"ended with {process.returncode}:\n{text}"
        time.sleep(0.05)
    raise AssertionError(f"{words!r} did not come in {timeout_s:g} s:\n{text}")
