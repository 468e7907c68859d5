"""``imax view``: a page to look at a folder of posters."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from imax_dist.errors import CannotWrite
from imax_dist.wording import plural

LOOPBACK = "127.0.0.1"
SERVED = (".html", ".css", ".js", ".txt", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".pdf", ".json")


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "view",
        help="look at posters in a browser",
        description="Write DIR/index.html: a contact sheet of the posters in DIR, each opening in a "
        "deep-zoom viewer. Open it from disk; no server is needed. Posters of the same prompt, seed and "
        "size by different presets are compared with a slider.",
    )
    parser.add_argument(
        "out", type=Path, metavar="DIR", help="folder of `imax batch`, or of posters of `imax generate`"
    )
    parser.add_argument("--serve", action="store_true", help="also serve it on localhost")
    parser.add_argument("--port", type=int, default=0, help="port of --serve (default: a free one)")
    parser.add_argument("--json", action="store_true", help="result as JSON on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page; with --serve stay until interrupted."""
    from imax_dist.output.web.page import write_page

    made = write_page(options.out, on_poster=lambda name: print(f"tiles of {name}", file=sys.stderr))
    for problem in made.problems:
        print(f"not shown: {problem}", file=sys.stderr)
    if options.json:
        print(json.dumps({"page": str(made.page), "posters": made.posters, "problems": made.problems}))
    else:
        print(f"{made.page}  {plural(made.posters, 'poster')}")
    if options.serve:
        serve(options.out, options.port)
    return 0


def serve(folder: Path, port: int) -> None:
    """Answer on 127.0.0.1 until interrupted. Raises CannotWrite if the port is taken."""
    handler = functools.partial(PageHandler, directory=str(folder))
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), handler)
    except OSError as error:
        raise CannotWrite(f"port {port} cannot be opened: {error.strerror}; omit --port") from error
    with server:
        print(f"http://{LOOPBACK}:{server.server_address[1]}/  (Ctrl-C ends it)", flush=True)
        server.serve_forever()


class PageHandler(SimpleHTTPRequestHandler):
    """Files that a page needs, no listings, nothing else."""

    def send_head(self) -> Any:
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            path = path / "index.html"
        inside = path.resolve().is_relative_to(Path(self.directory).resolve())
        if not inside or path.suffix.lower() not in SERVED or not path.is_file():
            self.send_error(404)
            return None
        return super().send_head()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal shows the address."""
