"""Who asks: bearer tokens, hashed at rest, with a role; requests a minute.

A secret has 256 random bits, so a plain SHA-256 keeps it: there is nothing to guess that salt or a slow hash
would protect. Browsers of the page send the same token as a cookie that scripts cannot read.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from starlette.requests import Request as HttpRequest

from imax_dist.errors import BadValue
from imax_dist.jobs.store import Token, Tokens
from imax_dist.service.refusals import Refused
from imax_dist.service.settings import ServiceSettings

Role = Literal["submit", "operate"]
ROLES: tuple[Role, ...] = ("submit", "operate")
COOKIE = "imax_token"
PREFIX = "imax_"
MOST_KNOWN = 10_000
LONGEST_NAME = 100
KNOWN_S = 5.0
"""How long a token that was found is believed, and that there is none; then the store is asked again."""
OWN_LIMITS = ("waiting", "per_minute")
"""Settings that a token may have for itself."""


@dataclass(frozen=True)
class Client:
    """Who asks. ``operate`` sees and changes every job, ``submit`` its own."""

    name: str
    role: Role
    limits: dict[str, Any] = field(default_factory=dict)

    def limit(self, name: str, settings: ServiceSettings) -> int:
        """The token's own limit, or the service's."""
        return int(self.limits.get(name, getattr(settings, name)))

    @property
    def operates(self) -> bool:
        return self.role == "operate"

    def may_see(self, owner: str) -> bool:
        return self.operates or owner == self.name


ANYBODY = Client("local", "operate")
"""Whoever is on this machine, where tokens are off."""


def add_token(tokens: Tokens, name: str, role: str, limits: dict[str, Any] | None = None) -> str:
    """A new token; its secret, which is shown once and kept nowhere. Raises BadValue."""
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or name.strip() != name:
        raise BadValue(f"a token's name is one line of 1 to {LONGEST_NAME} characters, got {name!r:.120}")
    if name == ANYBODY.name:
        raise BadValue(f"{name!r} stands for jobs sent without a token; choose another name")
    if role not in ROLES:
        raise BadValue(f"role {role!r} is not known; {' or '.join(ROLES)}")
    unknown = set(limits or {}) - set(OWN_LIMITS)
    if unknown:
        raise BadValue(
            f"a token has no limit {min(unknown)!r} of its own; it may have {' and '.join(OWN_LIMITS)}"
        )
    for name, value in (limits or {}).items():
        if value < 1:
            raise BadValue(f"{name} {value} must be above 0; to disable a token, revoke it")
    secret = PREFIX + secrets.token_urlsafe(32)
    tokens.add(Token(name, hash_of(secret), role, dict(limits or {})))
    return secret


def hash_of(secret: str) -> str:
    """SHA-256 (hex) of a token's secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Door:
    """Finds the client of a request, and counts its requests. An open one closes with the first token."""

    def __init__(
        self,
        tokens: Tokens,
        settings: ServiceSettings,
        *,
        required: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.required = required
        self._tokens = tokens
        self._settings = settings
        self._clock = clock
        self._looked = clock()
        self._known: OrderedDict[str, tuple[float, Client | None]] = OrderedDict()
        self._buckets: dict[str, tuple[float, float]] = {}

    def secret_of(self, request: HttpRequest) -> tuple[str, bool]:
        """The token a request brings, and whether as a cookie. Raises Refused for another scheme."""
        header = request.headers.get("authorization", "")
        if not header:
            return request.cookies.get(COOKIE, ""), True
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise unauthorised("the Authorization header must be: Bearer TOKEN")
        return secret.strip(), False

    def known(self, secret: str) -> Client | None:
        """The client if it was found a moment ago, without a look into the store; None: ``find`` it."""
        if not self.required:
            return ANYBODY if self._clock() - self._looked < KNOWN_S else None
        moment, client = self._known.get(hash_of(secret), (-math.inf, None))
        return client if self._clock() - moment < KNOWN_S else None

    def find(self, secret: str) -> Client:
        """The client of a token. Raises Refused (401). Reads the store."""
        if not self.required and not self._tokens.ever():
            self._looked = self._clock()
            return ANYBODY
        self.required = True
        if not secret:
            raise unauthorised("a token is needed; send it as Authorization: Bearer TOKEN")
        hashed = hash_of(secret)
        token = self._tokens.find(hashed)
        if token is None:
            raise unauthorised("the token is not known, or was revoked")
        client = Client(token.name, cast(Role, token.role), token.limits)
        self._known[hashed] = (self._clock(), client)
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return client

    def count(self, client: Client) -> None:
        """One request more. Raises Refused (429) over the client's requests a minute."""
        rate = client.limit("per_minute", self._settings) / 60.0
        burst = max(1.0, 20.0 * rate)
        now = self._clock()
        left, before = self._buckets.get(client.name, (burst, now))
        left = min(burst, left + (now - before) * rate)
        if left < 1.0:
            self._buckets[client.name] = (left, now)
            wait = math.ceil((1.0 - left) / rate)
            text = f"more than {60 * rate:.0f} requests a minute; try again in {wait} s"
            raise Refused(429, text, code="rate_limit_exceeded", headers={"Retry-After": str(wait)})
        self._buckets[client.name] = (left - 1.0, now)


def unauthorised(message: str) -> Refused:
    """401."""
    return Refused(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def require_operator(client: Client, what: str) -> None:
    """Raises Refused (403) for a token that may only submit."""
    if not client.operates:
        raise Refused(403, f"{what} needs a token with the role operate", code="forbidden")
