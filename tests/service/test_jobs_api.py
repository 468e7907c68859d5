"""Jobs over HTTP, with a real store and nothing that renders: submit, find again, change, refuse."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from http_client import Answer, Client
from PIL import Image
from prometheus_client import CollectorRegistry
from safetensors.torch import save_file
from served import Served, served, wait_until

from imax_dist.errors import CannotWrite
from imax_dist.events import JobDone
from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.state import Done, Failed, Proofed, Queued, done_state
from imax_dist.jobs.store import Delivery, Queue, Row, Submission, Webhooks
from imax_dist.output.atomic import write_bytes
from imax_dist.output.image.poster import write_poster
from imax_dist.pipeline.request import Request
from imax_dist.service.access import ANYBODY
from imax_dist.service.arrivals import Arrivals
from imax_dist.service.chores import Chore, Watch
from imax_dist.service.job_view import BASE
from imax_dist.service.settings import ServiceSettings
from imax_dist.service.webhooks import Caller

JOB = {"prompt": "a red sun over the sea", "size": "128x128"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("posters")
    lora = folder / "ink.safetensors"
    save_file({"x": torch.zeros(1)}, lora)
    settings = ServiceSettings(
        waiting=10_000, per_minute=100_000, upload_mib=1, upload_megapixels=0.1,
        webhook_hosts=("hooks.example",), loras={"ink": str(lora)},
    )  # fmt: skip
    with served(folder / "out", settings) as made:
        yield made


@pytest.fixture
def ask(here: Served) -> Client:
    return here.client()


def png(width: int = 32, height: int = 32) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), "#884422").save(content, "PNG")
    return content.getvalue()


def test_a_job_is_taken_with_its_id_time_and_place(ask: Client, here: Served) -> None:
    answer = ask("POST", BASE, JOB)
    job = answer.json
    assert answer.status == 202
    assert answer.headers["location"] == f"{BASE}/{job['id']}"
    assert (job["state"], job["request"]) == ("queued", JOB)
    assert 0.1 < job["planned_seconds"] < 600
    behind = ask("POST", BASE, JOB).json
    assert behind["place"] == job["place"] + 1
    assert behind["starts_in_seconds"] >= job["starts_in_seconds"]
    assert ask("GET", f"{BASE}/{job['id']}").json["state"] == "queued"


def test_jobs_that_come_together_stand_one_behind_the_other(ask: Client, here: Served) -> None:
    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(lambda _: ask("POST", BASE, JOB).json["place"], range(24)))
    assert sorted(places) == list(range(min(places), min(places) + 24))


def test_jobs_of_several_priorities_that_come_together_have_their_places(here: Served) -> None:
    arrivals, queue = here.service.submissions.arrivals, here.service.queue
    made = [
        Submission(make_job(Request("a sun"), name=f"mixed-{each}", priority=each % 2), "shop", str(each))
        for each in (2, 1, 4, 3, 4, 6)  # 4: one that asks again before it was answered
    ]
    found = asyncio.run(arrivals.submit(made, ANYBODY))
    assert [each.ahead for each in found] == [queue.ahead(each.row) for each in found]
    queue.cancel([each.row.id for each in found])


class Crowd:
    """A queue at which another client arrives with every writing, fifty times."""

    def __init__(self) -> None:
        self.written = 0
        self.come: Callable[[], None] = lambda: None

    def counts_of(self, owners: Sequence[str], states: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(owners, 0)

    def submit_all(self, submissions: Sequence[Submission]) -> list[tuple[Row, bool]]:
        self.written += 1
        if self.written < 50:
            self.come()
        return []


def test_the_first_of_a_crowd_is_answered_first(here: Served) -> None:
    crowd, parts = Crowd(), here.service.submissions.arrivals
    arrivals = Arrivals(cast(Queue, crowd), parts.settings, parts.estimates, parts.gangs, parts.writer)

    async def arrive() -> int:
        loop = asyncio.get_running_loop()
        others: list[Any] = []
        crowd.come = lambda: others.append(
            asyncio.run_coroutine_threadsafe(arrivals.submit([], ANYBODY), loop)
        )
        await arrivals.submit([], ANYBODY)
        written = crowd.written
        while crowd.written < 50:
            await asyncio.sleep(0.01)
        await asyncio.gather(*map(asyncio.wrap_future, others))
        return written

    assert asyncio.run(arrive()) < 10


def test_a_preview_that_is_gone_by_now_is_none(
    ask: Client, here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ask("POST", BASE, JOB).json["id"]
    monkeypatch.setattr("imax_dist.service.job_view.is_file", lambda _: True)  # it was there
    assert ask("GET", f"{BASE}/{job}").json["preview"] is None


def test_a_preview_that_is_replaced_while_it_is_read_comes_whole(ask: Client, here: Served) -> None:
    """Each answer is one of the previews: never the length of one with the bytes of another."""
    job = ask("POST", BASE, JOB).json["id"]
    preview, ended = JobFolder.of(here.out, job).preview, threading.Event()
    looks = [bytes([number]) * size for number, size in enumerate((400_000, 300_000, 350_000))]
    preview.parent.mkdir(exist_ok=True)
    write_bytes(preview, looks[0])

    def render() -> None:
        for look in itertools.cycle(looks):
            if ended.is_set():
                return
            write_bytes(preview, look)

    rank = threading.Thread(target=render)
    rank.start()
    try:
        answers = [ask("GET", f"{BASE}/{job}/files/preview.jpg") for _ in range(60)]
    finally:
        ended.set()
        rank.join()
    assert {answer.headers["content-type"] for answer in answers} == {"image/jpeg"}
    assert all(answer.body in looks for answer in answers)
    preview.unlink()
    assert ask("GET", f"{BASE}/{job}/files/preview.jpg").status == 204


def test_the_same_key_and_request_is_the_same_job_and_another_request_a_conflict(ask: Client) -> None:
    first = ask("POST", BASE, JOB, Idempotency_Key="order-1")
    again = ask("POST", BASE, JOB, Idempotency_Key="order-1")
    assert (first.status, again.status) == (202, 200)
    assert first.json["id"] == again.json["id"]
    assert first.json["key"] == "order-1"
    other = ask("POST", BASE, {**JOB, "seed": 2}, Idempotency_Key="order-1")
    assert other.status == 409
    assert "was used for another request" in other.message
    assert ask("POST", BASE, JOB, Idempotency_Key="with space").status == 400


def test_many_clients_with_one_key_at_once_make_one_job(ask: Client) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: ask("POST", BASE, JOB, Idempotency_Key="at-once"), range(32)))
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sorted(answer.status for answer in answers) == [200] * 31 + [202]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompt": "x", "sise": "1x1"}, "unknown field 'sise'; did you mean 'size'"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "x" * 1001}, "this pool takes 1000"),
        ({"prompt": "x", "size": "20000x20000"}, "is over this pool's 70 megapixels"),
        ({"prompt": "x", "size": "128"}, "size"),
        ({"prompt": "x", "steps": 500}, "steps 500 is over this pool's 60"),
        ({"prompt": "x", "model": "qwen-image"}, "is not allowed here"),
        ({"prompt": "x", "preset": "/etc/x.yaml"}, "names a file of this machine"),
        ({"prompt": "x", "guide": "/etc/passwd"}, "by the id that POST /v1/uploads answered"),
        ({"prompt": "x", "guide": "http://169.254.169.254/"}, "by the id that POST /v1/uploads answered"),
        ({"prompt": "x", "guide": "0" * 64}, "no longer exists"),
        ({"prompt": "x", "lora": ["/models/x.safetensors"]}, "is not allowed here; known: ink"),
        ({"prompt": "x", "lora": {"ink": 1}}, "lora must be a list of names"),
        ({"prompt": "x", "output": {"pdf": {"icc": "/etc/passwd"}}}, "names a file of this machine"),
        ({"prompt": "x", "method": {"reference": {"network": "/x.safetensors/"}}}, "names a file of this"),
        ({"prompt": "x", "method": []}, "method must hold keys, got []"),
        ({"prompt": "x", "guide": ""}, "a picture is given by the id that POST /v1/uploads answered"),
        ({"prompt": "x", "id": "../../etc"}, "the service names jobs"),
        ({"prompt": "x", "count": 3}, "POST /v1/batches takes many"),
        ({"prompt": "x", "webhook": "https://evil.example/x"}, "is not among the hosts"),
        ({"prompt": "x", "webhook": "file:///etc/passwd"}, "an http or https URL"),
        ({"prompt": "x", "webhook": "https://user:secret@hooks.example/"}, "without user and password"),
        ({"prompt": "x", "webhook": "https://hooks.example/\u00e9"}, "URL in ASCII"),
        ({"prompt": "x", "webhook": "https://[hooks.example/"}, "an http or https URL"),
        ({"prompt": "x", "approval": "yes"}, "approval must be true or false"),
        ({"prompt": "\ud800"}, "surrogate"),
    ],
)
def test_a_bad_job_is_refused_with_a_sentence_and_nothing_is_queued(
    ask: Client, here: Served, body: dict[str, Any], said: str
) -> None:
    before = here.service.queue.counts()
    answer = ask("POST", BASE, body)
    assert (answer.status, said in answer.message) == (400, True), answer.message
    assert set(answer.json["error"]) == {"message", "type", "code", "param"}
    assert "Traceback" not in answer.body.decode()
    assert here.service.queue.counts() == before


@pytest.mark.parametrize(
    ("raw", "kind", "status", "said"),
    [
        (b"{", "application/json", 400, "not valid JSON"),
        (b"[1]", "application/json", 400, "not a JSON object"),
        (b'{"prompt": NaN}', "application/json", 400, "NaN"),
        (b'{"prompt": "a", "prompt": "b"}', "application/json", 400, "prompt"),
        (b"[" * 100_000, "application/json", 400, "nested"),
        (b"\xff\xfe{}", "application/json", 400, "not UTF-8: byte 0"),
        (b'{"seed": 1' + b"0" * 5000 + b"}", "application/json", 400, "too many digits"),
        (b"prompt=x", "application/x-www-form-urlencoded", 415, "Content-Type: application/json"),
        (b" " * (1 << 20) + b"{}", "application/json", 413, "larger than the 1 MiB"),
    ],
)
def test_a_body_that_is_no_job_is_refused(ask: Client, raw: bytes, kind: str, status: int, said: str) -> None:
    answer = ask("POST", BASE, raw=raw, Content_Type=kind)
    assert (answer.status, said in answer.message) == (status, True), answer.message


def test_a_batch_is_taken_whole_or_not_at_all(ask: Client, here: Served) -> None:
    before = here.service.queue.counts()["queued"]
    bad = b'{"prompt": "a"}\n\n{"prompt": "b", "sise": 1}\n{"prompt": ""}\n'
    answer = ask("POST", "/v1/batches", raw=bad)
    assert answer.status == 400
    assert "nothing was queued:\nline 3: unknown field 'sise'" in answer.message
    assert "line 4: the prompt is empty" in answer.message
    assert here.service.queue.counts()["queued"] == before
    good = b'{"prompt": "a", "size": "128x128"}\n{"prompt": "b", "size": "128x128", "count": 3}\n'
    made = ask("POST", "/v1/batches", raw=good, Idempotency_Key="lot").json
    assert (len(made["jobs"]), made["new"]) == (4, 4)
    assert made["planned_seconds"] > 0
    again = ask("POST", "/v1/batches", raw=good, Idempotency_Key="lot").json
    assert (again["jobs"], again["new"]) == (made["jobs"], 0)
    keys = {ask("GET", f"{BASE}/{job}").json["key"] for job in made["jobs"]}
    assert keys == {"lot/0", "lot/1", "lot/2", "lot/3"}
    seeds = [ask("GET", f"{BASE}/{job}").json["request"].get("seed", 0) for job in made["jobs"]]
    assert seeds == [0, 0, 1, 2]


def test_a_key_names_a_batch_as_it_was(ask: Client, here: Served) -> None:
    def post(*prompts: str, key: str) -> Answer:
        lines = "".join(json.dumps({**JOB, "prompt": prompt}) + "\n" for prompt in prompts)
        return ask("POST", "/v1/batches", raw=lines.encode(), Idempotency_Key=key)

    made = post("a", "b", key="K").json["jobs"]
    before = here.service.queue.counts()["queued"]
    for others in (("a", "b", "c"), ("a",), ("a", "c"), ("a", "b", "c", "d")):
        refused = post(*others, key="K")
        assert (refused.status, "key 'K' was used for another request" in refused.message) == (409, True)
    assert ask("POST", BASE, JOB, Idempotency_Key="K").status == 409
    again = post("a", "b", key="K").json
    assert (again["jobs"], again["new"]) == (made, 0)
    assert here.service.queue.counts()["queued"] == before
    assert ask("POST", BASE, JOB, Idempotency_Key="one").status == 202
    assert [post("a", "b", key="one").status, post("a", key="one").status] == [409, 409]
    assert [ask("POST", BASE, JOB, Idempotency_Key=key).status for key in ("one", "one/0", "one")] == [
        200, 202, 200
    ]  # fmt: skip
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda count: post(*"abcdef"[:count], key="at-once-2"), (2, 3, 4, 5) * 4))
    assert sorted({answer.status for answer in answers}) == [202, 409]
    assert len({tuple(answer.json["jobs"]) for answer in answers if answer.status == 202}) == 1


@pytest.mark.parametrize(
    "more", [{"approval": True}, {"priority": 3}, {"webhook": "https://hooks.example/done"}]
)
def test_a_key_names_a_job_with_all_that_was_asked(ask: Client, here: Served, more: dict[str, Any]) -> None:
    for first, second in ((JOB, {**JOB, **more}), ({**JOB, **more}, JOB)):
        key = f"all-{min(more)}-{len(first)}"
        made = ask("POST", BASE, first, Idempotency_Key=key)
        assert (made.status, ask("POST", BASE, second, Idempotency_Key=key).status) == (202, 409)
        again = ask("POST", BASE, first, Idempotency_Key=key)
        assert (again.status, again.json["id"]) == (200, made.json["id"])
        for state in (Queued(attempts=1, proofed=True), Done("ab", 1, 1.0, 1), Proofed(1)):
            here.store.move(made.json["id"], state)
            assert ask("POST", BASE, first, Idempotency_Key=key).status == 200
            assert ask("POST", BASE, second, Idempotency_Key=key).status == 409, state
        ask("DELETE", f"{BASE}/{made.json['id']}")
        assert ask("POST", BASE, first, Idempotency_Key=key).status == 200


def test_the_list_goes_on_where_its_cursor_says(ask: Client) -> None:
    made = [ask("POST", BASE, JOB).json["id"] for _ in range(5)]
    first = ask("GET", f"{BASE}?limit=2").json
    assert [row["id"] for row in first["data"]] == [made[4], made[3]]
    second = ask("GET", f"{BASE}?limit=2&after={first['next']}").json
    assert [row["id"] for row in second["data"]] == [made[2], made[1]]
    assert ask("GET", f"{BASE}?state=done").json["data"] == []
    for query, said in (("limit=0", "limit"), ("state=ready", "state"), ("after=x", "after")):
        answer = ask("GET", f"{BASE}?{query}")
        assert (answer.status, answer.message.startswith(said)) == (400, True), answer.message


def test_a_job_is_cancelled_and_tried_again(ask: Client) -> None:
    path = f"{BASE}/{ask('POST', BASE, JOB).json['id']}"
    assert ask("POST", path + "/retry").message == "a job that is queued cannot be retried"
    assert ask("DELETE", path).json["state"] == "cancelled"
    refused = ask("DELETE", path)
    assert (refused.status, refused.message) == (409, "a job that is cancelled cannot be cancelled")
    assert ask("POST", path + "/retry").json["state"] == "queued"
    assert ask("DELETE", f"{BASE}/nobody").status == 404


def test_a_proof_is_approved(ask: Client, here: Served) -> None:
    job = ask("POST", BASE, {**JOB, "approval": True}).json["id"]
    assert ask("POST", f"{BASE}/{job}/approve").status == 409
    here.store.move(job, Proofed(1))
    assert ask("POST", f"{BASE}/{job}/approve").json["state"] == "queued"


def test_a_failure_says_why(ask: Client, here: Served) -> None:
    job = ask("POST", BASE, JOB).json["id"]
    here.store.move(job, Failed("BadValue", "no such thing", 1))
    assert ask("GET", f"{BASE}/{job}").json["error"] == {"kind": "BadValue", "message": "no such thing"}


def finish(here: Served, job: str) -> dict[str, Any]:
    """A finished poster as a rank leaves it."""
    row = here.service.queue.find(job)
    assert row is not None
    folder = JobFolder.of(here.out, job)
    folder.open(row.job)
    recipe = write_poster(folder.poster, torch.rand(16, 16, 3), {"request": {}})
    names = ["poster.png", "poster.recipe.json"]
    done, _ = folder.finish(
        row.fingerprint, {"pixels_sha256": recipe["pixels_sha256"], "seconds": 1.0}, names=names
    )
    here.store.move(job, done_state(done, attempts=1))
    return done


def test_a_file_comes_with_its_hash_and_in_ranges(ask: Client, here: Served) -> None:
    job = ask("POST", BASE, JOB).json["id"]
    done = finish(here, job)
    view = ask("GET", f"{BASE}/{job}").json
    (picture,) = (file for file in view["files"] if file["name"] == "poster.png")
    assert picture["sha256"] == done["files"]["poster.png"]["sha256"]
    whole = ask("GET", picture["url"])
    tag = f'"{picture["sha256"]}"'
    assert (whole.status, whole.headers["etag"]) == (200, tag)
    assert whole.body == (here.out / job / "poster.png").read_bytes()
    part = ask("GET", picture["url"], Range="bytes=10-19")
    assert (part.status, part.body) == (206, whole.body[10:20])
    assert ask("GET", picture["url"], Range="bytes=10-19", If_Range='"other"').status == 200
    assert ask("GET", picture["url"], Range="bytes=999999999-").status == 416
    assert ask("GET", picture["url"], If_None_Match=tag).status == 304
    assert ask("HEAD", picture["url"]).headers["content-length"] == str(len(whole.body))


@pytest.mark.parametrize(
    "name", ["request.json", "events.jsonl", "DONE", "..%2f..%2fbatch.sqlite", "poster.tif"]
)
def test_no_other_file_is_given_out(ask: Client, here: Served, name: str) -> None:
    job = ask("POST", BASE, JOB).json["id"]
    finish(here, job)
    assert ask("GET", f"{BASE}/{job}/files/{name}").status == 404


def test_a_picture_is_sent_and_guides_a_poster(ask: Client, here: Served) -> None:
    upload = ask("POST", "/v1/uploads", raw=png())
    assert upload.status == 201
    assert ask("POST", "/v1/uploads", raw=png()).json == upload.json
    job = ask("POST", BASE, {**JOB, "guide": upload.json["id"]}).json
    assert job["request"]["guide"] == upload.json["id"]
    row = here.service.queue.find(job["id"])
    assert row is not None
    assert Path(row.request["guide"]).read_bytes() == png()
    assert str(here.out) not in json.dumps(job)


def test_a_picture_of_ones_own_may_say_how_large_the_poster_is(ask: Client) -> None:
    upload = ask("POST", "/v1/uploads", raw=png(64, 48)).json["id"]
    job = ask("POST", BASE, {"guide": upload, "scale": 3, "strength": 0.3, "prompt": "a boat"})
    assert job.status == 202, job.message
    assert job.json["planned_seconds"] > 0
    large = ask("POST", BASE, {"guide": upload, "scale": 300, "prompt": "a boat"})
    assert (large.status, "is over this pool's 70 megapixels" in large.message) == (400, True)


def test_a_lora_of_the_list_is_asked_for_by_its_name(ask: Client, here: Served) -> None:
    answer = ask("POST", BASE, {**JOB, "lora": ["ink:0.5"]})
    assert answer.json["request"]["lora"] == ["ink:0.5"]
    row = here.service.queue.find(answer.json["id"])
    assert row is not None
    assert row.request["lora"] == [f"{here.service.settings.loras['ink']}:0.5"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"no picture at all", 415, "the upload"),
        (b"", 415, "the upload"),
        (png(400, 300), 413, "0.1 megapixels; 0.1 are read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(2 << 20), 413, "larger than the 1 MiB"),
    ],
)
def test_an_upload_that_is_no_picture_or_too_large_leaves_nothing(
    ask: Client, here: Served, body: bytes, status: int, said: str
) -> None:
    before = set(here.service.uploads.folder.glob("*")) | set(here.service.uploads.folder.glob(".*"))
    answer = ask("POST", "/v1/uploads", raw=body)
    assert (answer.status, said in answer.message) == (status, True), answer.message
    assert str(here.out) not in answer.message
    after = set(here.service.uploads.folder.glob("*")) | set(here.service.uploads.folder.glob(".*"))
    assert after == before


def test_a_body_that_stops_coming_is_refused(ask: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imax_dist.service.reading.SILENT_S", 0.1)
    answer = ask("POST", "/v1/uploads", raw=b"x", Content_Length="5")
    assert (answer.status, "no more of the body arrived" in answer.message) == (408, True)


def test_two_gigabytes_are_refused_before_they_are_sent(ask: Client) -> None:
    answer = ask("POST", "/v1/uploads", raw=b"", Content_Length=str(2 << 30))
    assert answer.status == 413


def test_old_uploads_that_no_job_waits_for_are_removed(here: Served, ask: Client) -> None:
    import os

    used, unused = (ask("POST", "/v1/uploads", raw=png(20, side)).json["id"] for side in (20, 21))
    ask("POST", BASE, {**JOB, "guide": used})
    for name in (used, unused):
        os.utime(here.service.uploads.folder / name, (0, 0))
    here.service.uploads.remove_old({str(here.service.uploads.folder / used)})
    assert (here.service.uploads.folder / used).is_file()
    assert not (here.service.uploads.folder / unused).is_file()


def test_a_store_that_is_away_is_reported_and_nothing_is_lost(
    ask: Client, here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise CannotWrite("/secret/place cannot be used: disk I/O error")

    monkeypatch.setattr(here.service.queue, "submit_all", away)
    answer = ask("POST", BASE, JOB)
    assert (answer.status, answer.headers["retry-after"]) == (503, "10")
    assert "/secret/place" not in answer.message
    assert "/secret/place" in here.log.getvalue()
    monkeypatch.undo()
    monkeypatch.setattr(here.service.queue, "ahead", away)  # after the commit: it is in, its place unknown
    answer = ask("POST", BASE, JOB)
    assert (answer.status, answer.json["place"]) == (202, None)
    monkeypatch.undo()
    assert ask("POST", BASE, JOB).status == 202


def test_a_store_that_is_away_when_a_poster_is_done_ends_no_pool(
    here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.service.queue, "find", unreachable)
    here.service.feed(JobDone("x", "gang-0", seconds=1.0))


def unreachable(*_: object) -> None:
    raise CannotWrite("the database does not answer")


class Calls:
    """Webhooks with one that is always due, in a store that does not answer when it was made."""

    def __init__(self, error: Exception) -> None:
        self.taken = 0
        self.error = error

    def made(self, number: int) -> None:
        raise self.error

    def waiting(self) -> int:
        return 1

    def take(self, most: int) -> list[Delivery]:
        self.taken += 1
        return [Delivery(1, "x", "http://hooks.example/", "{}", 0)]


@pytest.mark.parametrize("error", [CannotWrite("no answer"), OSError(116, "Stale file handle"), KeyError(1)])
def test_webhooks_go_on_after_whatever_went_wrong(
    here: Served, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("imax_dist.service.chores.FIRST_PAUSE_S", 0.0)
    calls, told = Calls(error), list[dict[str, Any]]()
    caller = Caller(here.service, cast(Webhooks, calls), b"", lambda _: None, send=lambda *_: 200)
    watch = Watch.over({}, CollectorRegistry(), told.append)

    async def for_some_looks() -> bool:
        task = asyncio.create_task(watch.keep_doing(Chore("webhooks", caller.call_due, 0.0)))
        while calls.taken < 3 and not task.done():
            await asyncio.sleep(0.01)
        return task.cancel()

    assert asyncio.run(for_some_looks())
    ours = isinstance(error, KeyError)
    assert [line["event"] for line in told[:2]] == (["chore.failed"] * 2 if ours else ["note"])
    assert bool(watch.failing) == ours


def test_a_job_is_followed_on_after_the_store_was_away(
    ask: Client, here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imax_dist.service.routes.events.LOOK_S", 0.05)
    find, looks, job = here.service.queue.find, [], ask("POST", BASE, JOB).json["id"]

    def away_after_the_first_look(job_id: str) -> Row | None:
        looks.append(job_id)
        if 1 < len(looks) < 4:
            raise CannotWrite("the database does not answer")
        return find(job_id)

    monkeypatch.setattr(here.service.queue, "find", away_after_the_first_look)
    told = ask.events(f"{BASE}/{job}/events")
    assert next(told)[1]["state"] == "queued"
    wait_until(lambda: len(looks) > 4)
    here.service.queue.cancel([job])
    assert [view["state"] for name, view in told if name == "state"] == ["cancelled"]


def test_what_is_no_http_is_a_line_of_the_log_as_well(here: Served) -> None:
    with socket.create_connection(("127.0.0.1", int(here.base.rpartition(":")[2]))) as connection:
        connection.sendall(b"\x16\x03\x01\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    lines = [json.loads(line) for line in here.log.getvalue().splitlines()]
    assert any(line["event"] == "http.note" and line["level"] == "warning" for line in lines)


def test_an_error_of_ours_is_a_sentence_without_a_traceback(
    ask: Client, here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.service.queue, "find", lambda _: 1 / 0)
    answer = ask("GET", f"{BASE}/x")
    assert answer.status == 500
    assert "ZeroDivision" not in answer.body.decode()
    assert "ZeroDivisionError" in here.log.getvalue()


def test_the_description_of_the_api_has_every_field_of_a_request(ask: Client) -> None:
    told = ask("GET", "/openapi.json").json
    body = told["paths"][BASE]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(Request("-").__dict__) <= set(body["properties"])
    assert {"webhook", "approval"} <= set(body["properties"])
    assert not body["additionalProperties"]
    for path in (
        "/v1/batches",
        "/v1/uploads",
        "/v1/images/generations",
        "/healthz",
        f"{BASE}/{{job_id}}/events",
    ):
        assert path in told["paths"]


def test_unknown_addresses_and_methods_are_sentences(ask: Client) -> None:
    assert ask("GET", "/v2").message == "there is nothing at this address; /docs lists what there is"
    refused = ask("PATCH", BASE)
    assert (refused.status, "/docs lists those it accepts" in refused.message) == (405, True)
    assert ask("GET", f"{BASE}/%00").status == 404
    assert ask("GET", f"{BASE}?after={2**63}").status == 400
    assert "did you mean 'state'" in ask("GET", f"{BASE}?stat=done").message
    assert ask("GET", "/page/..%2fapp.py").status == 404


def test_probes_say_when_requests_should_stop(
    ask: Client, here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask("GET", "/readyz").json == {"ready": True, "why": ""}
    assert ask("GET", "/healthz").status == 200
    monkeypatch.setattr(here.service.room, "least_mib", 1 << 40)
    full = ask("GET", "/readyz")
    assert (full.status, "the disk of posters has" in full.json["why"]) == (503, True)
    refused = ask("POST", "/v1/uploads", raw=png())
    assert (refused.status, "send the picture again later" in refused.message) == (503, True)
    assert b"imax_disk_free_bytes" in ask("GET", "/metrics").body
    monkeypatch.setattr(here.service.health, "draining", True)
    assert (ask("GET", "/readyz").status, ask("GET", "/readyz").json["why"]) == (503, "it is stopping")
    monkeypatch.setattr(here.service.health, "turned", -1e9)
    assert "has not run" in ask("GET", "/healthz").json["why"]


def test_a_render_that_stands_still_is_not_healthy(
    ask: Client, here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imax_dist.service.feed import Live

    monkeypatch.setattr(here.service.health, "turned", 1e9)
    monkeypatch.setitem(here.service.feed.live, "x", Live(0.0))
    monkeypatch.setattr(here.service.feed, "last_step", -1e9)
    answer = ask("GET", "/healthz")
    assert (answer.status, "no event came" in answer.json["why"]) == (503, True)
