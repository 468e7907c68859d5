"""``imax serve --check``: everything that can be looked at before a service starts."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from imax_dist.errors import BadConfig
from imax_dist.jobs.ray_gangs import pool_parallel
from imax_dist.jobs.sizing import open_pool, this_host
from imax_dist.jobs.store import Queue, Tokens, open_store
from imax_dist.output.atomic import require_writable
from imax_dist.pipeline.check import CheckWithoutModel, has_weights
from imax_dist.pipeline.request import Request
from imax_dist.service.http import listen_at
from imax_dist.service.server import Serving
from imax_dist.service.settings import limits_of

NO_WEIGHTS = "its weights are not all on this disk; the first job downloads them, where that is possible"


def check(serving: Serving) -> dict[str, Any]:
    """What it would do, in words; nothing is started.

    Raises BadConfig if no model that may be asked for is here, and what starting it would raise.
    """
    pool_parallel(serving.pool)
    limits = limits_of(serving.service)
    require_writable(serving.out)
    with closing(listen_at(serving.host, serving.port)) as door:
        port = door.getsockname()[1]
    with closing(open_store(serving.place)) as store:
        tokens = Tokens(store.database)
        needed = serving.needs_tokens(tokens)
        counts = Queue(store.database).counts()
        queue = f"{store.name}: {', '.join(f'{n} {name}' for name, n in counts.items()) or 'empty'}"
        names = [f"{token.name} ({token.role})" for token in tokens.all() if token.revoked is None]
    missing = _missing(limits.models) if serving.ray == "local" else {}
    if limits.models and missing.keys() >= set(limits.models):
        raise BadConfig(f"none of the allowed models is available: {'; '.join(missing.values())}")
    if serving.ray == "local":
        missing |= {name: f"{name}: {NO_WEIGHTS}" for name in limits.models if not has_weights(name)}
    there = [name for name in limits.models if name not in missing]
    pool = open_pool(serving.pool, [this_host()])
    gangs = f"{pool.least_gangs} to {pool.gangs} of {pool.ranks} ranks"
    most = f"{limits.megapixels:g} megapixels, {limits.steps} steps"
    return {
        "address": f"http://{serving.host}:{port}/",
        "queue": queue,
        "tokens": (", ".join(names) or "all revoked") if needed else "none: answers this machine only",
        "models": ", ".join(there) or "any",
        "missing": "; ".join(missing.values()) or "nothing",
        "gangs": gangs if serving.ray == "local" else "by the cluster",
        "limits": f"{most}, {serving.service.waiting} waiting jobs a token",
    }


def _missing(models: tuple[str, ...]) -> dict[str, str]:
    """Why a model cannot be had on this machine, by its name."""
    look = CheckWithoutModel()
    found = {name: look(Request("-", model=name)) for name in models}
    return {name: f"{name}: {problem}" for name, problem in found.items() if problem}
