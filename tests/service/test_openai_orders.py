"""OpenAI's client as it comes, tries again and all: an order is made once, or refused for good."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import pytest
from PIL import Image
from served import Served, served, wait_until

from imax_dist.jobs.state import Failed
from imax_dist.service.job_view import BASE
from imax_dist.service.settings import ServiceSettings

openai = pytest.importorskip("openai", reason="openai is not installed (extra: dev)")
ORDER: dict[str, Any] = {"prompt": "a red sun", "size": "128x128"}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Served]:
    settings = ServiceSettings(sync_seconds=1e6, per_minute=100_000)
    with served(tmp_path / "out", settings, tokens={"shop": "submit"}) as made:
        yield made


@pytest.fixture
def library(here: Served) -> Any:
    """With the retries that it has by default."""
    return openai.OpenAI(base_url=here.base + "/v1", api_key=here.secrets["shop"], timeout=20)


def picture(side: int = 32) -> tuple[str, bytes, str]:
    content = io.BytesIO()
    Image.effect_noise((side, side), 90).convert("RGB").save(content, "PNG")
    return "mine.png", content.getvalue(), "image/png"


def jobs_of(here: Served) -> list[dict[str, Any]]:
    return list(here.client()("GET", BASE).json["data"])


def cancel(here: Served, job: str) -> None:
    here.client()("DELETE", f"{BASE}/{job}")


def fail(here: Served, job: str) -> None:
    here.store.move(job, Failed("out_of_memory", "no memory", 1, retryable=True))
    here.service.feed.wake(job)


def stop(here: Served, job: str) -> None:
    here.service.health.draining = True
    here.service.feed.wake(job)


@pytest.mark.parametrize(("end", "status"), [(cancel, 409), (fail, 500), (stop, 503)])
def test_an_order_that_came_to_nothing_is_not_ordered_again(
    library: Any, here: Served, end: Callable[[Served, str], None], status: int
) -> None:
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(library.images.generate, **ORDER)
        (job,) = wait_until(lambda: jobs_of(here))
        end(here, job["id"])
        with pytest.raises(openai.APIStatusError) as refused:
            asking.result(60)
    assert refused.value.status_code == status
    assert len(jobs_of(here)) == 1


def test_an_idempotency_key_names_an_order_of_the_openai_client(library: Any, here: Served) -> None:
    def generate(**fields: Any) -> Any:
        return library.images.generate(**ORDER, n=2, extra_headers={"Idempotency-Key": "A-1"}, **fields)

    def edit() -> Any:
        return library.images.edit(**ORDER, image=mine, extra_headers={"Idempotency-Key": "A-2"})

    mine = picture()
    for ask, count in ((generate, 2), (edit, 3)):
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask)
            wait_until(lambda count=count: len(jobs_of(here)) == count)  # type: ignore[misc]
            for job in jobs_of(here):
                cancel(here, job["id"])
            assert isinstance(asking.exception(60), openai.ConflictError)
        with pytest.raises(openai.ConflictError, match="was cancelled"):
            ask()
        assert len(jobs_of(here)) == count
    with pytest.raises(openai.ConflictError, match="was used for another request"):
        generate(extra_body={"steps": 3})
    assert len(jobs_of(here)) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 200_000, "seed: nested too deeply"),
        ("[" * 30 + "]" * 30, "seed: nested too deeply"),
        ("NaN", "seed: NaN is not a number"),
        ('{"a": 1, "a": 2}', "seed: field 'a' is given twice"),
        ("9" * 5000, "seed: a number has too many digits"),
    ],
)
def test_a_forms_field_is_read_as_strictly_as_json(library: Any, text: str, said: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        library.images.edit(**ORDER, image=picture(), extra_body={"seed": text})
    assert said in str(refused.value)


def test_a_full_disk_while_a_form_is_read_is_a_sentence(
    library: Any, here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SpooledTemporaryFile, "write", full)
    with pytest.raises(openai.InternalServerError, match="nothing was lost, try again later") as refused:
        library.with_options(max_retries=0).images.edit(**ORDER, image=picture())
    assert refused.value.status_code == 503
    assert jobs_of(here) == []


def test_a_poster_of_unknown_time_is_left_to_jobs(
    library: Any, here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.service.submissions.estimates, "guess", lambda _: None)
    with pytest.raises(openai.BadRequestError, match="how long this takes is not known here; POST it to"):
        library.images.generate(**ORDER)
    assert jobs_of(here) == []
