"""Jobs through a pool to posters: events, previews, files, OpenAI's own client, webhooks. Real renders."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from http_client import Client
from PIL import Image
from served import Served, served, wait_until
from tiny_flux import make_tiny_flux

from imax_dist.errors import CannotWrite
from imax_dist.jobs.settings import PoolSettings
from imax_dist.jobs.store import Row
from imax_dist.models.tiny import make_tiny
from imax_dist.output.image.provenance import read_recipe
from imax_dist.service.job_view import BASE
from imax_dist.service.settings import ServiceSettings
from imax_dist.service.webhooks import FIRST_WAIT_S, LONGEST_WAIT_S, wait_after, webhook_secret

openai = pytest.importorskip("openai", reason="openai is not installed (extra: dev)")
SMALL: dict[str, Any] = {"prompt": "a red sun over the sea", "size": "128x96", "preset": "one_jump"}
EXTRA = {"preset": "one_jump"}
POOL = PoolSettings(device="cpu", threads=1, checkpoint_every=1, idle=3600)


class Receiver(HTTPServer):
    """Somebody's endpoint; answers 500 the first time."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: list[tuple[dict[str, str], bytes]] = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(500 if len(self.server.calls) == 1 else 204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny network, allowed by name."""
    return str(make_tiny_flux(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same of a network that is shown a picture."""
    return str(make_tiny("flux-kontext", tmp_path_factory.mktemp("models") / "editor"))


@pytest.fixture(scope="module")
def here(
    tmp_path_factory: pytest.TempPathFactory, receiver: Receiver, model: str, editor: str
) -> Iterator[Served]:
    hosts = (f"127.0.0.1:{receiver.server_port}",)
    settings = ServiceSettings(models=(model, editor), per_minute=100_000, webhook_hosts=hosts)
    SMALL["model"] = model
    folder = tmp_path_factory.mktemp("posters")
    with served(
        folder, settings, tokens={"shop": "submit", "boss": "operate"}, pool=POOL, gangs=True
    ) as made:
        yield made


@pytest.fixture
def ask(here: Served) -> Client:
    return here.client()


@pytest.fixture
def library(here: Served) -> Any:
    return openai.OpenAI(base_url=here.base + "/v1", api_key=here.secrets["shop"], max_retries=0)


def opened(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def done(ask: Client, job: str) -> dict[str, Any]:
    path = f"{BASE}/{job}"
    wait_until(lambda: ask("GET", path).json["state"] in ("done", "failed", "proofed", "cancelled"))
    return dict(ask("GET", path).json)


def test_a_job_is_followed_to_its_files(ask: Client, here: Served) -> None:
    job = ask("POST", BASE, {**SMALL, "output": {"pdf": {}}}).json["id"]
    told = list(ask.events(f"{BASE}/{job}/events"))
    states = [data["state"] for name, data in told if name == "state"]
    assert states[0] in ("queued", "running")
    assert states[-1] == "done"
    assert any(name == "progress" for name, _ in told)
    files = {file["name"]: file for file in told[-1][1]["files"]}
    assert {"poster.png", "poster.pdf", "poster.recipe.json", "native.png"} <= set(files)
    picture = ask("GET", files["poster.png"]["url"])
    assert hashlib.sha256(picture.body).hexdigest() == files["poster.png"]["sha256"]
    assert Image.open(io.BytesIO(picture.body)).size == (128, 96)
    recipe = ask("GET", files["poster.recipe.json"]["url"]).body.decode()
    assert here.secrets["shop"] not in recipe
    layers = ask("GET", f"{BASE}/{job}/layers").json["layers"]
    assert [ask("GET", layer["url"]).status for layer in layers] == [200, 200]


def test_a_proof_is_shown_and_the_poster_made_once_it_is_approved(ask: Client) -> None:
    job = ask("POST", BASE, {**SMALL, "approval": True}).json["id"]
    proof = done(ask, job)
    assert proof["state"] == "proofed"
    assert ask("GET", proof["preview"]).headers["content-type"] == "image/png"
    ask("POST", f"{BASE}/{job}/approve")
    assert done(ask, job)["state"] == "done"


def test_a_running_job_is_cancelled_between_its_steps_and_goes_on_later(ask: Client) -> None:
    path = f"{BASE}/" + ask("POST", BASE, {**SMALL, "steps": 60, "native_steps": 60}).json["id"]
    wait_until(lambda: (ask("GET", path).json["progress"] or {}).get("step"))
    assert ask("DELETE", path).json["cancelling"]
    wait_until(lambda: ask("GET", path).json["state"] == "cancelled")
    assert ask("POST", path + "/retry").json["state"] in ("queued", "running")
    ask("DELETE", path)


def test_the_openai_client_gets_pictures(library: Any) -> None:
    found = library.images.generate(
        prompt=SMALL["prompt"], model=SMALL["model"], size="128x96", n=2, extra_body=EXTRA
    )
    first, second = (opened(datum.b64_json) for datum in found.data)
    assert first.size == second.size == (128, 96)
    assert first.tobytes() != second.tobytes()


def test_the_openai_client_hears_of_looks_on_the_way(library: Any) -> None:
    stream = library.images.generate(
        prompt=SMALL["prompt"], model=SMALL["model"], size="128x96", stream=True, partial_images=1,
        extra_body={**EXTRA, "steps": 12},
    )  # fmt: skip
    events = list(stream)
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert opened(events[-1].b64_json).size == (128, 96)
    assert events[0].partial_image_index == 0
    assert max(opened(events[0].b64_json).size) <= 256


def test_the_openai_client_edits_a_picture_of_its_own_by_words_where_the_model_can(
    library: Any, model: str, editor: str, tmp_path: Path
) -> None:
    content = io.BytesIO()
    Image.new("RGB", (96, 96), "#3366aa").save(content, "PNG")
    mine = ("mine.png", content.getvalue(), "image/png")
    own: dict[str, Any] = {**EXTRA, "edit": False, "steps": 2}
    by_words: dict[str, Any] = {**EXTRA, "steps": 2, "native_steps": 2}
    for name, extra, edited in ((model, EXTRA, False), (editor, by_words, True), (editor, own, False)):
        found = library.images.edit(
            image=mine, prompt=SMALL["prompt"], model=name, size="128x96", extra_body=extra
        )
        poster = tmp_path / "poster.png"
        poster.write_bytes(base64.b64decode(found.data[0].b64_json))
        assert Image.open(poster).size == (128, 96)
        assert read_recipe(poster)["request"]["edit"] is edited


def test_the_openai_client_gets_jpegs_urls_and_models(library: Any, ask: Client) -> None:
    jpeg = library.images.generate(
        prompt=SMALL["prompt"], model=SMALL["model"], size="128x96", output_format="jpeg", extra_body=EXTRA
    )
    assert opened(jpeg.data[0].b64_json).format == "JPEG"
    link = library.images.generate(
        prompt=SMALL["prompt"], model=SMALL["model"], size="128x96", response_format="url", extra_body=EXTRA
    )
    assert ask("GET", link.data[0].url).status == 200
    assert SMALL["model"] in [model.id for model in library.models.list().data]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"quality": "high"}, "quality may be auto or standard; give preset or steps instead"),
        ({"background": "transparent"}, "no transparent parts"),
        ({"output_format": "webp"}, "output_format must be png or jpeg"),
        ({"output_format": []}, "output_format must be png or jpeg"),
        ({"n": 11}, "n must be 1 to 10"),
        ({"style": "vivid"}, "style is not supported"),
        ({"model": "dall-e-3"}, "is not allowed here"),
        ({"extra_body": {"negativ": "x"}}, "unknown field 'negativ'"),
        ({"extra_body": {"partial_images": 2}}, "partial_images needs stream"),
        ({"size": "8192x8192"}, "POST it to /v1/images/jobs"),
    ],
)
def test_what_is_not_done_is_refused_in_words_the_client_shows(
    library: Any, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        library.images.generate(**{"prompt": "x", "model": SMALL["model"], "size": "128x96", **fields})
    assert said in str(refused.value)


def test_whoever_waits_for_a_picture_waits_on_while_the_store_is_away(
    library: Any, here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, looks = here.service.queue.find, []

    def away_for_some_looks(job: str) -> Row | None:
        looks.append(job)
        if len(looks) < 4:
            raise CannotWrite("the database does not answer")
        return find(job)

    monkeypatch.setattr("imax_dist.service.routes.openai.LOOK_S", 0.05)
    monkeypatch.setattr(here.service.queue, "find", away_for_some_looks)
    found = library.images.generate(
        prompt=SMALL["prompt"], model=SMALL["model"], size="128x96", extra_body=EXTRA
    )
    assert opened(found.data[0].b64_json).size == (128, 96)
    assert len(set(looks)) == 1


def test_a_wrong_token_is_the_clients_authentication_error(here: Served) -> None:
    client = openai.OpenAI(base_url=here.base + "/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="the token is not known"):
        client.images.generate(prompt="x", model=SMALL["model"])


def test_a_webhook_is_signed_and_tried_until_it_is_taken(
    ask: Client, here: Served, receiver: Receiver
) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/done?shop=1"
    job = ask("POST", BASE, {**SMALL, "webhook": url}).json["id"]
    wait_until(lambda: len(receiver.calls) >= 2)
    headers, body = receiver.calls[1]
    told = json.loads(body)
    assert (told["event"]["event"], told["job"]["id"], told["job"]["state"]) == ("job.done", job, "done")
    moment, signed = (part.partition("=")[2] for part in headers["imax-signature"].split(","))
    secret = webhook_secret(here.out)
    assert hmac.new(secret, f"{moment}.".encode() + body, hashlib.sha256).hexdigest() == signed
    assert receiver.calls[0][0]["imax-delivery"] == headers["imax-delivery"]
    assert (here.out / "_service" / "webhook-secret").stat().st_mode & 0o777 == 0o600
    assert secret.decode() not in here.log.getvalue()


def test_the_wait_between_tries_doubles_up_to_an_hour() -> None:
    assert [wait_after(tries) for tries in (1, 2, 3)] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert wait_after(40) == LONGEST_WAIT_S


def test_metrics_have_the_names_that_ray_exports(ask: Client, here: Served) -> None:
    done(ask, ask("POST", BASE, SMALL).json["id"])
    text = here.client("boss")("GET", "/metrics").body.decode()
    assert 'imax_jobs_total{state="done"}' in text
    assert 'imax_queue_depth{state="done"}' in text
    assert 'imax_steps_total{gang="gang-0",stage="extrapolated"}' in text
    assert "imax_job_seconds_bucket" in text


def test_the_log_names_jobs_and_gangs_on_lines_of_json(ask: Client, here: Served) -> None:
    job = ask("POST", BASE, SMALL).json["id"]
    done(ask, job)
    lines = [json.loads(line) for line in here.log.getvalue().splitlines()]
    started = next(line for line in lines if line["event"] == "job.started" and line["job"] == job)
    assert started["gang"] == "gang-0"
    assert {"ts", "level", "event"} <= set(started)
    assert SMALL["prompt"] not in here.log.getvalue()
