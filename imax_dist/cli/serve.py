"""``imax serve``: an open queue of posters behind HTTP, with a page; and the tokens that open it."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imax_dist.errors import BadValue, MissingInput

if TYPE_CHECKING:
    from imax_dist.service.server import Serving

PORT = 8000


EXAMPLES = """examples:
  imax serve --out posters
  imax serve --out posters --add-token alice
  imax serve --out posters --add-token shop --waiting 20 --per-minute 60
  imax serve --out posters --host 0.0.0.0 --ray auto"""


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "serve",
        help="posters as a service: API, page, queue",
        description="Take jobs over HTTP and render them until SIGTERM; run it again to resume. Its address "
        "shows a page, /docs the API. Without a token it answers this machine only.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the queue and the posters")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    add("--port", type=int, default=PORT, help=f"port (default {PORT}; 0: any free one)")
    add("--ray", default="local", metavar="WHERE", help="local (default), auto, or a cluster's address")
    add("--store", metavar="URL", help="queue in a database, postgresql://..., instead of a file in DIR")
    add("--config", default="default", metavar="NAME", help="a file of configs/service, or a path")
    add("--pool", metavar="NAME", help="a file of configs/jobs, or a path (default: local, or default)")
    add("--gangs", type=int, help="limit of posters rendered at once (default: one per device)")
    add("--ranks", type=int, help="ranks that render one poster together (default 1)")
    add("--device", choices=("auto", "cpu", "cuda"), help="device of every rank (default: the pool's)")
    _add_token_options(parser)
    add("--json", action="store_true", help="result of --check or --add-token as JSON on stdout")
    add("-q", "--quiet", action="store_true", help="do not log requests")
    parser.set_defaults(run=run)


def _add_token_options(parser: argparse.ArgumentParser) -> None:
    """What makes, limits or revokes a token instead of serving, or checks."""
    add = parser.add_argument
    one = parser.add_mutually_exclusive_group().add_argument
    one("--add-token", metavar="NAME", help="create a token, print it once, and exit")
    add(
        "--role",
        choices=("submit", "operate"),
        default="submit",
        help="with --add-token: submit (its own jobs, default) or operate (all)",
    )
    add(
        "--waiting",
        type=int,
        metavar="N",
        help="with --add-token: limit of queued jobs (default: --config's)",
    )
    add(
        "--per-minute",
        type=int,
        metavar="N",
        help="with --add-token: limit of requests a minute (default: --config's)",
    )
    one("--revoke-token", metavar="NAME", help="revoke a token and exit")
    one("--check", action="store_true", help="check that it can start, report what it would do, and exit")


def run(options: argparse.Namespace) -> int:
    """Serve until asked to stop: 0 if nothing was left to do, 75 if jobs wait for the next start.

    Raises MissingInput without the extra serve, BadValue for options of another command.
    """
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise MissingInput("serving needs FastAPI and uvicorn; pip install 'imax-dist[serve]'")
    if options.add_token is not None or options.revoke_token is not None:
        return _tokens(options)
    if limits := _own_limits(options):
        text = f"--{min(limits).replace('_', '-')} is a limit of one token, given with --add-token; "
        raise BadValue(text + "those of the service are in its --config")
    serving = _serving(options)
    if options.check:
        return _check(options, serving)
    from imax_dist.cli.stop_signal import StopSignal
    from imax_dist.service.log import Log
    from imax_dist.service.server import run_service

    log = Log(quiet=options.quiet)
    stop = StopSignal(write_line=lambda text: log({"event": "note", "text": text}))
    run_service(serving, arm=stop.arm, log=log, announce=lambda address: print(address, flush=True))
    return 0


def _serving(options: argparse.Namespace) -> Serving:
    from imax_dist.jobs.batch import load_pool_settings
    from imax_dist.service.server import Serving
    from imax_dist.service.settings import load_service

    given = {"gangs": options.gangs, "ranks": options.ranks, "device": options.device}
    changes = {name: value for name, value in given.items() if value is not None}
    pool = options.pool or ("local" if options.ray == "local" else "default")
    return Serving(
        out=options.out,
        pool=load_pool_settings(pool, changes),
        service=load_service(options.config),
        place=_place(options),
        ray=options.ray,
        host=options.host,
        port=options.port,
    )


def _place(options: argparse.Namespace) -> Path | str:
    from imax_dist.jobs.store.files import store_path
    from imax_dist.jobs.store.store import is_url

    if options.store is None:
        return store_path(options.out)
    return str(options.store) if is_url(options.store) else Path(options.store)


def _own_limits(options: argparse.Namespace) -> dict[str, int]:
    """What a new token may, where that is not what the service says."""
    given = {"waiting": options.waiting, "per_minute": options.per_minute}
    return {name: value for name, value in given.items() if value is not None}


def _tokens(options: argparse.Namespace) -> int:
    """Add or revoke a token; a running service knows of it within seconds."""
    from contextlib import closing

    from imax_dist.jobs.store import Tokens, open_store
    from imax_dist.service.access import add_token

    with closing(open_store(_place(options))) as store:
        tokens = Tokens(store.database)
        if options.revoke_token is not None:
            tokens.revoke(options.revoke_token)
            print(f"revoked: {options.revoke_token}")
            return 0
        secret = add_token(tokens, options.add_token, options.role, _own_limits(options))
    if options.json:
        made = {"name": options.add_token, "role": options.role, **_own_limits(options)}
        print(json.dumps({**made, "token": secret}))
    else:
        print(secret)
        print(f"the token of {options.add_token} ({options.role}); it is shown this once", file=sys.stderr)
    return 0


def _check(options: argparse.Namespace, serving: Serving) -> int:
    from imax_dist.service.check import check

    facts = check(serving)
    if options.json:
        print(json.dumps(facts))
    else:
        for name, value in facts.items():
            print(f"{name:<10} {value}")
    return 0
