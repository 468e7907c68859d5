"""How much of the disk each client's uploads take, by a table that servers and restarts share."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, func, select

from imax_dist.jobs.store.changes import chunks
from imax_dist.jobs.store.database import Database, insert_new
from imax_dist.jobs.store.tables import uploads


class UploadQuota:
    """Uploads that are kept, by the SHA-256 of their bytes; one that several clients sent counts for each."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, owner: str, digest: str, size: int, *, most: int) -> bool:
        """Count one more of ``size`` bytes; False, and nothing is counted, if all would be over ``most``."""
        others = (uploads.c.owner == owner) & (uploads.c.digest != digest)
        held = select(func.coalesce(func.sum(uploads.c.bytes), 0)).where(others)
        with self._database.writing() as connection:
            if int(connection.execute(held).scalar_one()) + size > most:
                return False
            row = {"owner": owner, "digest": digest, "bytes": size}
            connection.execute(insert_new(connection, uploads).values(**row))
            return True

    def of(self, owner: str) -> list[str]:
        """The digests that count for ``owner``."""
        query = select(uploads.c.digest).where(uploads.c.owner == owner)
        with self._database.reading() as connection:
            return [str(digest) for (digest,) in connection.execute(query)]

    def forget(self, digests: Collection[str]) -> None:
        """They are not kept any more."""
        if not digests:
            return
        with self._database.writing() as connection:
            for some in chunks(sorted(digests)):
                connection.execute(delete(uploads).where(uploads.c.digest.in_(some)))
