"""Finished posters to an object store: ``s3://bucket/prefix``, ``gs://``, ``az://``.

A poster's files go to ``<prefix>/<job id>/``, each with its hash, and DONE after them: whoever finds DONE
there finds all of it. What lies there with the same hash is not sent again. Credentials and endpoint come
from the environment, as each provider's own programs read them (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from imax_dist.errors import BadConfig, NoPermission, NotDelivered
from imax_dist.events import Listener, ignore
from imax_dist.events.render import progress
from imax_dist.output import done
from imax_dist.output.atomic import write_json
from imax_dist.wording import first_line

KINDS = ("s3", "gs", "az")
PART = 8 << 20
"""Bytes of a part; a file up to this is sent whole."""
SILENCE_S = 45.0
"""Tries again for so long; less than the shortest silence that a gang is allowed in a stage."""
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".tif": "image/tiff"} | {
    ".tiff": "image/tiff",
    ".pdf": "application/pdf",
    ".json": "application/json",
}
TEST = "imax-write-test"
HASH = "sha256"
"""The object's own metadata."""


def check_target(url: str) -> str:
    """``url`` without a slash at its end. Raises BadConfig if it is not a bucket, or without the library."""
    if re.fullmatch(rf"({'|'.join(KINDS)})://[A-Za-z0-9][A-Za-z0-9._-]+(/[A-Za-z0-9._=-]+)*/?", url) is None:
        raise BadConfig(f"deliver {url!r} is not a bucket; write s3://BUCKET/PREFIX, gs:// or az://")
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise BadConfig(f"deliver {url} needs obstore: pip install 'imax-dist[deliver]'") from error
    return url.rstrip("/")


def require_target(url: str) -> None:
    """Write an empty object, before any work is done, and take it away. Raises as ``deliver``."""
    place = check_target(url)
    with _clear_errors(place):
        bucket = _open(place)
        _put(bucket, TEST, b"", {"Content-Type": "text/plain"})
    from obstore import delete
    from obstore.exceptions import BaseError

    with suppress(BaseError):  # a key that may write need not be allowed to delete
        delete(bucket, TEST)


def deliver(folder: Path, target: str, record: Mapping[str, Any], listen: Listener = ignore) -> str:
    """Send a finished poster, whose DONE says ``record``, and write DELIVERED beside it; where it is now.

    Raises NotDelivered if it is worth trying again, else NoPermission or BadConfig.
    """
    place = f"{check_target(target)}/{folder.name}"
    files = record.get("files") or {done.PICTURE: record}
    count = progress(listen, sum(int(facts["bytes"]) for facts in files.values()))
    with _clear_errors(place):
        bucket = _open(place)
        for name, facts in sorted(files.items()):
            _send(bucket, folder / name, str(facts[HASH]), count)
        _put(bucket, done.FILE, json.dumps(dict(record)).encode(), {"Content-Type": TYPES[".json"]})
    write_json(folder / done.DELIVERED, {"place": place, "fingerprint": record["fingerprint"]})
    return place


def delivered(folder: Path, target: str, fingerprint: str) -> str:
    """Where the poster of the request ``fingerprint`` was sent to, if it was to ``target``; else empty."""
    record = done.read_delivered(folder)
    place = f"{target.rstrip('/')}/{folder.name}"
    return place if record == {"place": place, "fingerprint": fingerprint} else ""


def link(place: str, name: str, *, seconds: float) -> str:
    """A signed address at which anybody may read a delivered file for ``seconds``. Raises as ``deliver``."""
    import obstore

    with _clear_errors(place):
        signed: str = obstore.sign(_open(place), "GET", name, timedelta(seconds=seconds))
    return signed


def _open(place: str) -> Any:
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    settings: dict[str, Any] = {
        "retry_config": {"max_retries": 10, "retry_timeout": timedelta(seconds=SILENCE_S)},
        "client_options": {
            "timeout": timedelta(seconds=SILENCE_S),
            "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true",
        },
    }
    if place.startswith("s3://"):
        settings["config"] = {"aws_checksum_algorithm": "SHA256"}  # the server compares, part by part
    try:
        return from_url(place, **settings)
    except BaseError as error:  # nothing was asked yet
        raise BadConfig(
            f"{place} cannot be opened: {first_line(error)}; set what the provider's own programs read, for "
            "example AZURE_STORAGE_ACCOUNT_NAME"
        ) from error


def _send(bucket: Any, path: Path, sha256: str, count: Callable[[int], None]) -> None:
    size = path.stat().st_size
    if _there(bucket, path.name, size, sha256):
        count(size)
        return
    attributes = {"Content-Type": TYPES.get(path.suffix, "application/octet-stream"), HASH: sha256}
    if size <= PART:
        _put(bucket, path.name, path.read_bytes(), attributes)
        count(size)
    else:
        _put(bucket, path.name, _parts(path, count), attributes)
    if not _there(bucket, path.name, size, sha256):
        raise NotDelivered(f"{path.name} was sent, but the stored copy differs; it is sent again")


def _put(bucket: Any, name: str, content: bytes | Iterator[bytes], attributes: dict[str, str]) -> None:
    import obstore

    whole = isinstance(content, bytes)
    obstore.put(bucket, name, content, attributes=attributes, use_multipart=not whole, chunk_size=PART)


def _there(bucket: Any, name: str, size: int, sha256: str) -> bool:
    import obstore

    try:
        found = obstore.get(bucket, name, options={"head": True})
    except FileNotFoundError:
        return False
    return found.meta["size"] == size and found.attributes.get(HASH) == sha256


def _parts(path: Path, count: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(PART):
            yield part
            count(len(part))


@contextmanager
def _clear_errors(place: str) -> Iterator[None]:
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise NoPermission(f"{place} refuses these credentials: {first_line(error)}") from error
    except FileNotFoundError as error:
        raise BadConfig(f"{place} cannot be written: the bucket does not exist; create it first") from error
    except (BaseError, OSError) as error:
        raise NotDelivered(
            f"{place} rejected the upload: {first_line(error)}; it stays in its folder and is sent again"
        ) from error
