"""Plain HTTP for tests: a status, headers, and a body that is read whole or line by line."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The sentence of a refusal."""
        return str(self.json["error"]["message"])


@dataclass
class Client:
    base: str
    token: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
    ) -> Answer:
        connection, response = self._ask(method, path, body, raw, headers)
        try:
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def events(self, path: str) -> Generator[tuple[str, Any], None, None]:
        """Server-sent events until the other side ends."""
        connection, response = self._ask("GET", path, None, None, {})
        try:
            name = ""
            for line in response:
                if line.startswith(b"event: "):
                    name = line[7:].decode().strip()
                elif line.startswith(b"data: "):
                    yield name, json.loads(line[6:])
        finally:
            connection.close()

    def _ask(self, method: str, path: str, body: Any, raw: bytes | None, headers: dict[str, str]) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.base).netloc, timeout=60)
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if raw is None and body is not None:
            raw = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection.request(method, path, body=raw, headers=sent)
        return connection, connection.getresponse()
