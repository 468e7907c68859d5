"""A server that speaks the part of the hub's protocol that huggingface_hub's client uses to download."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_ours"


@dataclass
class Hub:
    """Repositories by id, each with its revisions; ``cut`` files end their connection after so many bytes."""

    repositories: dict[str, dict[str, Path]]
    gated: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    down: bool = False
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range of every request."""
    address: str = ""

    def sha(self, name: str, revision: str) -> str | None:
        """The commit of a branch, tag or commit."""
        commits = {own: hashlib.sha1(f"{name} {own}".encode()).hexdigest() for own in self.repositories[name]}
        return commits.get(revision) or next((sha for sha in commits.values() if sha == revision), None)

    def folder(self, name: str, sha: str) -> Path:
        return next(path for own, path in self.repositories[name].items() if self.sha(name, own) == sha)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answer on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path, self.headers.get("Range")))
            if hub.down:
                self.refuse(503, None)
                return
            parts = path.strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            named = parts[2:] if api else parts
            if len(named) < 2:
                self.refuse(404, None)
                return
            owner, name, kind, revision, *rest = [*named, "revision", "main"] if len(named) == 2 else named
            repository = f"{owner}/{name}"
            if repository not in hub.repositories:
                self.refuse(404, "RepoNotFound")
            elif repository in hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.refuse(403, "GatedRepo")
            elif (sha := hub.sha(repository, revision)) is None:
                self.refuse(404, "RevisionNotFound")
            elif api:
                folder = hub.folder(repository, sha)
                self.say(tree(folder) if kind == "tree" else {"id": repository, "sha": sha, "siblings": []})
            else:
                self.send_file(hub.folder(repository, sha) / "/".join(rest), sha, "/".join(rest), body=body)

        def refuse(self, status: int, code: str | None) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def say(self, answer: Any) -> None:
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def send_file(self, file: Path, sha: str, name: str, *, body: bool) -> None:
            content = file.read_bytes()
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", sha)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("Accept-Ranges", "bytes")
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if not body:
                return
            limit = hub.cut.get(name)
            self.wfile.write(content[start:] if limit is None else content[start : start + limit])
            if limit is not None and start + limit < len(content):
                self.wfile.flush()
                self.close_connection = True

    return Handler


def tree(folder: Path) -> list[dict[str, Any]]:
    """Every file as the hub lists it."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return [
        {
            "type": "file",
            "path": str(file.relative_to(folder)),
            "size": file.stat().st_size,
            "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
        }
        for file in files
    ]
