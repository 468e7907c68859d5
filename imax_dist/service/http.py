"""The HTTP server of ``imax serve``: an address, and an application that answers there in a thread."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn
from prometheus_client import CollectorRegistry

from imax_dist.errors import BadValue, CannotWrite
from imax_dist.jobs.settings import Keep
from imax_dist.jobs.store import Store, Webhooks
from imax_dist.service.app import make_app
from imax_dist.service.chores import Chore
from imax_dist.service.log import Log, heard_of, traceback_of
from imax_dist.service.service import Service
from imax_dist.service.sweeper import Sweeper
from imax_dist.service.webhooks import Caller, webhook_secret

START_S = 30.0
END_S = 10.0
SWEEP_S = 3600.0
CALL_S = 1.0
"""Between two looks for webhooks that are due."""
BACKLOG = 2048
KEEP_ALIVE_S = 75
"""Longer than a proxy keeps an idle connection: the side that closes first decides who sees an error."""


@contextmanager
def application(
    service: Service,
    registry: CollectorRegistry,
    door: socket.socket,
    *,
    log: Log,
    store: Store,
    keep: Keep,
) -> Iterator[None]:
    """The application answers at ``door`` for the length of the block. Raises CannotWrite if it cannot."""
    caller = Caller(service, Webhooks(store.database), webhook_secret(service.out), log)
    chores = [Chore("sweeper", Sweeper(service, store, keep, log).sweep, SWEEP_S)]
    if service.settings.webhook_hosts:
        chores.append(Chore("webhooks", caller.call_due, CALL_S))
    app = make_app(service, registry, log=log, chores=chores)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        server_header=False,
        timeout_graceful_shutdown=int(END_S),
    )
    server = uvicorn.Server(config)
    serve = partial(_serve, server, door, service=service, log=log)
    thread = threading.Thread(target=serve, daemon=True, name="imax-http")
    with heard_of("uvicorn.error", log), heard_of("python_multipart", log):
        thread.start()
        yield from _answering(server, thread, service)


def _serve(server: uvicorn.Server, door: socket.socket, *, service: Service, log: Log) -> None:
    """Until told to end. Should it end by itself, nobody is answered any more, and the pool stops as well."""
    try:
        server.run(sockets=[door])
    except Exception as error:
        log({"event": "http.error", "error": repr(error), "traceback": traceback_of(error)})
    finally:
        if server.started and not server.should_exit:
            service.health.failure = "the HTTP server ended by itself; the log says why"
            service.health.draining = True


def _answering(server: uvicorn.Server, thread: threading.Thread, service: Service) -> Iterator[None]:
    try:
        began = time.monotonic()
        while not server.started:
            if not thread.is_alive() or time.monotonic() - began > START_S:
                raise CannotWrite("the HTTP server did not start; the log says why")
            time.sleep(0.02)
        yield
    finally:
        service.health.draining = True
        server.should_exit = True
        thread.join(timeout=END_S + 2.0)
        service.writer.shutdown(wait=True)


def listen_at(host: str, port: int) -> socket.socket:
    """A listening socket. Raises BadValue for no address at all, CannotWrite if it cannot be had."""
    if not host.strip("[] ") or not 0 <= port < 1 << 16:
        raise BadValue(
            f"{host!r}:{port} is not an address to listen on; --host is a name or number like 127.0.0.1, "
            "--port 1 to 65535, or 0 for any free one"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        of_port = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        what = "--port" if of_port else "--host"
        raise CannotWrite(f"cannot listen on {host}:{port}: {reason}; choose another {what}") from error
