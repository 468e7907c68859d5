"""Finished posters in an object store before they count as done; a real S3 server over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_gang import Script, World
from object_store import Door, ObjectStore, missing
from test_pool import Shop

from imax_dist.errors import BadConfig, NotDelivered
from imax_dist.events import Progress
from imax_dist.jobs import deliver as delivery
from imax_dist.jobs.deliver import check_target, deliver, delivered, link, require_target
from imax_dist.jobs.job import Job, JobFolder
from imax_dist.jobs.reconcile import add_jobs
from imax_dist.jobs.state import Done, Queued
from imax_dist.jobs.store import Store
from imax_dist.jobs.store.files import store_path
from imax_dist.jobs.task import Finished
from imax_dist.pipeline.request import Request

JOB = Job("sun", Request("x", size="64x64"), fingerprint="fp")
LARGE = 9 << 20
"""Bytes: more than one part."""


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    if why := missing():
        pytest.skip(why)
    server = ObjectStore()
    server.client().create_bucket(Bucket="shop")
    yield server
    server.close()


@pytest.fixture
def door(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """What clients of the test talk to."""
    door = Door(server.port)
    for name, value in server.environment(door.port).items():
        monkeypatch.setenv(name, value)
    yield door
    door.close()


@pytest.fixture
def target(tmp_path: Path) -> str:
    return f"s3://shop/{tmp_path.name}"


def finished(out: Path, job: Job = JOB) -> tuple[Path, dict[str, Any]]:
    """A poster with a print file of two parts."""
    folder = JobFolder.of(out, job.id)
    folder.open(job)
    folder.poster.write_bytes(b"pixels")
    (folder.path / "poster.recipe.json").write_text("{}")
    (folder.path / "poster.tif").write_bytes(os.urandom(1 << 20) * 9)
    names = ["poster.png", "poster.recipe.json", "poster.tif"]
    record, _ = folder.finish(job.fingerprint, {"pixels_sha256": "ab", "seconds": 1.0}, names=names)
    return folder.path, record


def objects(server: ObjectStore, target: str) -> dict[str, bytes]:
    client, prefix = server.client(), target.removeprefix("s3://shop/")
    found = client.list_objects_v2(Bucket="shop", Prefix=prefix).get("Contents", [])
    keys = [each["Key"] for each in found]
    return {
        key.removeprefix(f"{prefix}/"): client.get_object(Bucket="shop", Key=key)["Body"].read()
        for key in keys
    }


@pytest.mark.slow
def test_all_files_arrive_with_their_hashes_and_done_comes_last(
    server: ObjectStore, door: Door, target: str, tmp_path: Path
) -> None:
    folder, record = finished(tmp_path)
    heard: list[Any] = []
    place = deliver(folder, f"{target}/", record, heard.append)
    assert place == f"{target}/sun"
    sent = objects(server, target)
    assert set(sent) == {f"sun/{name}" for name in (*record["files"], "DONE")}
    for name, facts in record["files"].items():
        assert hashlib.sha256(sent[f"sun/{name}"]).hexdigest() == facts["sha256"]
    assert json.loads(sent["sun/DONE"]) == record
    assert delivered(folder, target, "fp") == place
    assert heard[-1] == Progress(LARGE + 8, LARGE + 8)
    head = server.client().head_object(Bucket="shop", Key=f"{tmp_path.name}/sun/poster.tif")
    assert head["ContentType"] == "image/tiff"
    assert head["ETag"].endswith('-2"'), "sent in two parts"
    paths = [path for path in door.seen if path.startswith("PUT")]
    assert paths[-1].endswith("/sun/DONE")


@pytest.mark.slow
def test_what_is_there_is_not_sent_again(door: Door, target: str, tmp_path: Path) -> None:
    folder, record = finished(tmp_path)
    deliver(folder, target, record)
    door.seen.clear()
    deliver(folder, target, record)
    assert [path for path in door.seen if not path.startswith("HEAD")] == [
        f"PUT /shop/{tmp_path.name}/sun/DONE"
    ]


@pytest.mark.slow
def test_another_picture_of_the_same_name_is_sent(
    server: ObjectStore, door: Door, target: str, tmp_path: Path
) -> None:
    folder, record = finished(tmp_path)
    deliver(folder, target, record)
    (tmp_path / "sun" / "poster.png").write_bytes(b"others")
    record, _ = JobFolder(tmp_path / "sun").finish("new", {"pixels_sha256": "cd"}, names=["poster.png"])
    assert delivered(tmp_path / "sun", target, "new") == "", "that was the earlier request's"
    deliver(tmp_path / "sun", target, record)
    assert objects(server, target)["sun/poster.png"] == b"others"


@pytest.mark.slow
def test_a_server_that_fails_for_a_while_is_tried_again(door: Door, target: str, tmp_path: Path) -> None:
    folder, record = finished(tmp_path)
    door.failures = 3
    assert deliver(folder, target, record)
    assert door.failures == 0


@pytest.mark.slow
def test_a_server_that_stays_away_is_worth_another_attempt(
    door: Door, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "SILENCE_S", 1.0)
    folder, record = finished(tmp_path)
    door.failures = 1000
    with pytest.raises(NotDelivered, match=r"rejected the upload: .*is sent again") as error:
        deliver(folder, target, record)
    assert error.value.retryable
    assert delivered(folder, target, "fp") == ""


@pytest.mark.slow
def test_a_delivery_that_was_cut_off_leaves_no_done_and_goes_on(
    server: ObjectStore, door: Door, target: str, tmp_path: Path
) -> None:
    folder, record = finished(tmp_path)

    def cut(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, NotDelivered)):
        deliver(folder, target, record, cut)
    assert "sun/DONE" not in objects(server, target)
    deliver(folder, target, record)
    assert "sun/DONE" in objects(server, target)


@pytest.mark.slow
def test_a_signed_link_opens_one_file_to_anybody(door: Door, target: str, tmp_path: Path) -> None:
    folder, record = finished(tmp_path)
    place = deliver(folder, target, record)
    signed = link(place, "poster.png", seconds=60)
    assert "X-Amz-Signature" in signed
    with urllib.request.urlopen(signed) as answer:
        assert answer.read() == b"pixels"
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(link(place, "nothing.png", seconds=60))


@pytest.mark.slow
def test_the_service_links_to_what_was_sent_and_is_not_here(door: Door, target: str, tmp_path: Path) -> None:
    signed_link = pytest.importorskip("imax_dist.service.routes.files").signed_link
    folder, record = finished(tmp_path)
    done = Done("ab", 6, 1.0, 1, deliver(folder, target, record))
    store = Store(store_path(tmp_path))
    store.add([(JOB, done)])
    (row,) = store.rows()
    assert signed_link(tmp_path, row, "poster.png") == "", "it is here"
    (folder / "poster.png").unlink()
    with urllib.request.urlopen(signed_link(tmp_path, row, "poster.png")) as answer:
        assert answer.read() == b"pixels"
    assert signed_link(tmp_path, row, "../../etc/passwd") == ""
    assert signed_link(tmp_path, row, "request.json") == "", "nothing but the poster is sent"


@pytest.mark.slow
def test_a_bucket_is_tried_before_anything_is_rendered(door: Door, target: str) -> None:
    require_target(target)
    with pytest.raises(BadConfig, match="the bucket does not exist; create it first"):
        require_target("s3://nobody/x")


@pytest.mark.parametrize(
    "url",
    [
        "posters",
        "ftp://a/b",
        "s3://",
        "s3:///x",
        "s3://a b",
        "s3://shop/../x y",
        "file:///etc",
        "s3://u:p@h/x?q",
    ],
)
def test_what_is_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(BadConfig, match="is not a bucket; write s3://BUCKET/PREFIX"):
        check_target(url)


def test_a_store_without_an_account_is_a_sentence_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(BadConfig, match=r"az://shop cannot be opened: .*Account.* AZURE_STORAGE"):
        require_target("az://shop")


def test_a_finished_poster_is_delivered_without_a_render(tmp_path: Path) -> None:
    """The gang was lost between DONE and the end of the delivery."""
    world = World()
    place = "s3://shop/out/a"
    world.scripts["a"] = [Script(outcome=Finished({"pixels_sha256": "ab", "bytes": 6, "delivered": place}))]
    shop = Shop(tmp_path, world, 2, deliver="s3://shop/out")
    job = next(row.job for row in shop.store.rows() if row.id == "a")
    finished(tmp_path, job)
    assert shop.run()["a"] == Done("ab", 6, 0.0, 1, place)
    assert [(work, name) for _, work, name, _ in world.started] == [("delivery", "a"), ("poster", "b")]


def test_a_delivered_poster_is_done_wherever_its_folder_is(tmp_path: Path) -> None:
    store, target = Store(store_path(tmp_path)), "s3://shop/out"
    done = Done("ab", 6, 1.0, 1, "s3://shop/out/sun")
    store.add([(JOB, done)])
    add_jobs(store, [JOB], tmp_path / "elsewhere", deliver=target)
    assert store.states()["sun"] == done
    add_jobs(store, [JOB], tmp_path / "elsewhere", deliver="s3://shop/other")
    assert isinstance(store.states()["sun"], Queued)


def test_a_finished_poster_that_was_not_delivered_is_queued(tmp_path: Path) -> None:
    store = Store(store_path(tmp_path))
    finished(tmp_path)
    add_jobs(store, [JOB], tmp_path, deliver="s3://shop/out")
    assert store.states()["sun"] == Queued(proofed=True, after="not delivered yet")
    add_jobs(store, [JOB], tmp_path)
    assert isinstance(store.states()["sun"], Done)
