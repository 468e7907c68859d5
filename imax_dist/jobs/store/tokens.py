"""API tokens of a service, hashed at rest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update

from imax_dist.errors import BadValue
from imax_dist.jobs.store.database import Database
from imax_dist.jobs.store.tables import tokens


@dataclass(frozen=True)
class Token:
    """Who may do what. ``hash`` is of the secret, which nobody keeps; ``name`` owns what is submitted."""

    name: str
    hash: str
    role: str
    limits: dict[str, Any]
    """The service's own: quotas, rates."""
    created: float = 0.0
    revoked: float | None = None


class Tokens:
    """The tokens of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, token: Token) -> None:
        """Raises BadValue if the name is taken."""
        with self._database.writing() as connection:
            if connection.execute(select(tokens.c.name).where(tokens.c.name == token.name)).first():
                raise BadValue(f"token {token.name!r} exists; choose another name")
            made = {"created": self._database.now(connection), "limits": json.dumps(token.limits)}
            connection.execute(
                insert(tokens).values(name=token.name, hash=token.hash, role=token.role, **made)
            )

    def find(self, hash_: str) -> Token | None:
        """The token whose secret has this hash, unless it was revoked."""
        where = (tokens.c.hash == hash_) & tokens.c.revoked.is_(None)
        with self._database.reading() as connection:
            found = connection.execute(select(tokens).where(where)).mappings().first()
        return None if found is None else _token(dict(found))

    def all(self) -> list[Token]:
        """Revoked ones as well, by name."""
        with self._database.reading() as connection:
            found = connection.execute(select(tokens).order_by(tokens.c.name)).mappings().all()
        return [_token(dict(each)) for each in found]

    def ever(self) -> bool:
        """Whether there is one or was one: a service does not open when its last token is revoked."""
        with self._database.reading() as connection:
            return connection.execute(select(tokens.c.name).limit(1)).first() is not None

    def revoke(self, name: str) -> None:
        """From now on its secret opens nothing. Raises BadValue for an unknown name."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            gone = update(tokens).where(tokens.c.name == name).values(revoked=now)
            if connection.execute(gone).rowcount == 0:
                raise BadValue(f"token {name!r} does not exist")


def _token(found: dict[str, Any]) -> Token:
    return Token(**{**found, "limits": json.loads(found["limits"])})
