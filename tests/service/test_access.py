"""Who may ask, from where, and how often; and what never leaves the service."""

from __future__ import annotations

import io
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from http_client import Client
from PIL import Image
from served import Served, served, wait_until

from imax_dist.errors import BadConfig, BadValue
from imax_dist.jobs.store import Store, Tokens
from imax_dist.service import access
from imax_dist.service.access import add_token
from imax_dist.service.server import Serving
from imax_dist.service.settings import ServiceSettings, limits_of

JOB = {"prompt": "a red sun over the sea", "size": "128x128"}
JOBS = "/v1/images/jobs"
ROLES = {"shop": "submit", "rival": "submit", "boss": "operate"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = ServiceSettings(cors=("https://shop.example",), waiting=40)
    with served(tmp_path_factory.mktemp("posters"), settings, tokens=ROLES) as made:
        yield made


def test_without_a_token_nothing_is_answered(here: Served) -> None:
    for client in (Client(here.base), Client(here.base, "imax_wrong")):
        answer = client("GET", JOBS)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "token" in answer.message
    assert Client(here.base)("GET", JOBS, Authorization="Basic eDp5").status == 401


def test_a_token_is_kept_as_its_hash_alone_and_never_logged(here: Served) -> None:
    secret = here.secrets["shop"]
    assert here.client()("POST", JOBS, JOB).status == 202
    rows = list(sqlite3.connect(here.out / "batch.sqlite").iterdump())
    assert not any(secret in row or secret.removeprefix("imax_") in row for row in rows)
    assert any(access.hash_of(secret) in row for row in rows)
    wait_until(lambda: '"client": "shop"' in here.log.getvalue())  # the line is written after the answer
    assert secret not in here.log.getvalue()
    assert "red sun" not in here.log.getvalue()


def test_a_job_of_another_token_does_not_exist(here: Served) -> None:
    job = here.client()("POST", JOBS, JOB).json["id"]
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/retry"),
        ("GET", "/events"),
        ("GET", "/files/x"),
    ):
        answer = here.client("rival")(method, f"{JOBS}/{job}{path}")
        assert answer.status == 404
        assert "does not exist here, or is another token's" in answer.message
    assert job not in [row["id"] for row in here.client("rival")("GET", JOBS).json["data"]]
    assert here.client("boss")("GET", f"{JOBS}/{job}").status == 200


def test_a_revoked_token_ends_within_seconds(here: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(here.store.database)
    client = Client(here.base, add_token(tokens, "guest", "submit"))
    assert client("GET", JOBS).status == 200
    tokens.revoke("guest")
    monkeypatch.setattr(access, "KNOWN_S", 0.0)
    assert client("GET", JOBS).status == 401


def test_only_operators_read_metrics_and_set_priorities(here: Served) -> None:
    assert here.client()("GET", "/metrics").status == 403
    assert here.client("boss")("GET", "/metrics").status == 200
    answer = here.client()("POST", JOBS, {**JOB, "priority": 5})
    assert (answer.status, answer.message) == (400, "priority may be set by tokens with the role operate")
    assert here.client("boss")("POST", JOBS, {**JOB, "priority": 5}).status == 202


def test_more_requests_than_allowed_are_told_when_to_come_again(tmp_path: Path) -> None:
    with served(tmp_path, ServiceSettings(per_minute=12), tokens=ROLES) as here:
        answers = [here.client()("GET", JOBS) for _ in range(6)]
        assert [answer.status for answer in answers[:4]] == [200] * 4
        assert answers[-1].status == 429
        assert int(answers[-1].headers["retry-after"]) == 5
        assert here.client("rival")("GET", JOBS).status == 200


def test_more_waiting_jobs_than_allowed_are_told_when_to_come_again(tmp_path: Path) -> None:
    with served(tmp_path, ServiceSettings(waiting=3), tokens=ROLES) as here:
        here.service.submissions.estimates.learn(replace_prompt(), 20.0)
        keys = [here.client()("POST", JOBS, JOB, Idempotency_Key=f"k{i}").status for i in range(3)]
        assert keys == [202] * 3
        assert here.client()("POST", JOBS, JOB, Idempotency_Key="k1").status == 200
        answer = here.client()("POST", "/v1/batches", raw=b'{"prompt": "x", "count": 2}')
        assert answer.status == 429
        assert answer.headers["retry-after"] == "40"
        assert here.client("rival")("POST", JOBS, JOB).status == 202


def test_jobs_that_are_tried_again_count_as_waiting(tmp_path: Path) -> None:
    with served(tmp_path, ServiceSettings(waiting=2), tokens=ROLES) as here:
        here.service.submissions.estimates.learn(replace_prompt(), 20.0)
        ask = here.client()
        paths = [f"{JOBS}/{ask('POST', JOBS, JOB).json['id']}" for _ in range(2)]
        full = ask("POST", paths[0] + "/retry")
        assert (full.status, full.message) == (409, "a job that is queued cannot be retried")
        for path in paths:
            ask("DELETE", path)
        paths += [f"{JOBS}/{ask('POST', JOBS, JOB).json['id']}" for _ in range(2)]
        again = ask("POST", paths[0] + "/retry")
        assert (again.status, again.headers["retry-after"]) == (429, "20")
        assert "2 of your jobs are queued or running, and 2 are allowed" in again.message
        ask("DELETE", paths[3])
        assert [ask("POST", path + "/retry").status for path in paths[:2]] == [200, 429]
        assert here.client("boss")("POST", paths[1] + "/retry").status == 200


def test_before_anything_was_made_the_planner_says_when_to_come_again(tmp_path: Path) -> None:
    with served(tmp_path, ServiceSettings(waiting=1), tokens=ROLES) as here:
        planned = here.client()("POST", JOBS, JOB).json["planned_seconds"]
        answer = here.client()("POST", JOBS, JOB)
        assert answer.status == 429
        assert abs(int(answer.headers["retry-after"]) - planned) <= 1


def test_a_token_has_so_many_event_streams_open(tmp_path: Path) -> None:
    with served(tmp_path, ServiceSettings(streams=2), tokens=ROLES) as here:
        ask = here.client()
        path = f"{JOBS}/{ask('POST', JOBS, JOB).json['id']}"
        followed = [ask.events(path + "/events") for _ in range(2)]
        assert [next(each)[0] for each in followed] == ["state", "state"]
        refused = ask("GET", path + "/events")
        assert (refused.status, "you have 2 open event streams" in refused.message) == (429, True)
        assert next(here.client("boss").events(path + "/events"))[0] == "state"
        ask("DELETE", path)
        for each in followed:
            assert list(each)[-1][1]["state"] == "cancelled"
        wait_until(lambda: not here.service.streams["shop"])
        assert ask("GET", path + "/events").status == 200


def test_a_tokens_uploads_have_a_size_together(tmp_path: Path) -> None:
    def picture(seed: int) -> bytes:
        content, pixels = io.BytesIO(), random.Random(seed).randbytes(400 * 400 * 3)
        Image.frombytes("RGB", (400, 400), pixels).save(content, "PNG")
        return content.getvalue()

    with served(tmp_path, ServiceSettings(upload_mib=1, upload_times=1), tokens=ROLES) as here:
        ask = here.client()
        first, second, third = (picture(seed) for seed in range(3))
        sent = [ask("POST", "/v1/uploads", raw=each) for each in (first, second, third, first)]
        assert [each.status for each in sent] == [201, 201, 429, 201]
        assert "your uploads are limited to 1 MiB in total" in sent[2].message
        assert here.client("rival")("POST", "/v1/uploads", raw=third).status == 201
        (here.service.uploads.folder / sent[0].json["id"]).unlink()
        assert ask("POST", "/v1/uploads", raw=third).status == 201
        assert len(list(here.service.uploads.folder.iterdir())) == 2
    with served(tmp_path, ServiceSettings(upload_mib=1, upload_times=1)) as again:
        again.secrets |= here.secrets
        ask = again.client()
        assert ask("POST", "/v1/uploads", raw=picture(3)).status == 429, "a start forgets no upload"
        for path in again.service.uploads.folder.iterdir():
            os.utime(path, (0, 0))
        again.service.uploads.remove_old(())
        assert ask("POST", "/v1/uploads", raw=picture(3)).status == 201


def replace_prompt() -> object:
    from imax_dist.pipeline.request import Request

    return replace(Request("x", size="128x128"), prompt="y")


def test_a_page_of_another_site_cannot_act_in_a_visitors_name(here: Served) -> None:
    cookie = f"imax_token={here.secrets['boss']}"
    browser = Client(here.base, headers={"Cookie": cookie})
    assert browser("GET", JOBS).status == 200
    answer = browser("POST", JOBS, JOB, Origin="https://evil.example")
    assert answer.status == 403
    assert "may not call this service" in answer.message
    assert browser("POST", JOBS, JOB, Origin=here.base).status == 202
    assert here.client()("POST", JOBS, JOB, Origin="https://shop.example").status == 202


def test_only_listed_origins_are_answered_as_cross_origin(here: Served) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for origin, allowed in (("https://shop.example", "https://shop.example"), ("https://evil.example", None)):
        client = Client(here.base, headers={**asked, "Origin": origin})
        assert client("OPTIONS", JOBS).headers.get("access-control-allow-origin") == allowed


def test_every_answer_has_strict_headers(here: Served) -> None:
    for path in ("/", JOBS, "/nothing"):
        headers = here.client()("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_without_tokens_only_this_machines_names_are_answered(tmp_path: Path) -> None:
    with served(tmp_path) as here:
        assert Client(here.base)("GET", JOBS).status == 200
        answer = Client(here.base, headers={"Host": "rebound.example"})("GET", JOBS)
        assert answer.status == 403
        assert "answers to localhost only" in answer.message


def test_the_session_cookie_is_for_this_site_and_no_script(here: Served) -> None:
    answer = Client(here.base)("POST", "/session", {"token": here.secrets["shop"]})
    assert answer.json == {"client": "shop", "role": "submit"}
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert Client(here.base)("POST", "/session", {"token": "imax_no"}).status == 401


def test_behind_an_ingress_that_ends_tls_the_cookie_is_secure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for believed, secure in (("*", True), ("192.0.2.1", False)):
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", believed)
        with served(tmp_path / believed.strip("*"), tokens=ROLES) as here:
            token = {"token": here.secrets["shop"]}
            answer = Client(here.base)("POST", "/session", token, X_Forwarded_Proto="https")
            assert ("Secure" in answer.headers["set-cookie"]) == secure


def test_an_address_that_others_reach_needs_a_token_first(tmp_path: Path) -> None:
    serving = Serving(tmp_path, None, ServiceSettings(), tmp_path / "batch.sqlite", host="0.0.0.0")  # type: ignore[arg-type]
    tokens = Tokens(Store(tmp_path / "batch.sqlite").database)
    add_token(tokens, "shop", "submit")
    assert serving.needs_tokens(tokens)
    tokens.revoke("shop")
    with pytest.raises(BadValue, match="no token exists yet"):
        serving.needs_tokens(tokens)
    assert replace(serving, host="127.0.0.1").needs_tokens(tokens), "what was closed does not open"


def test_the_first_token_closes_a_service_that_runs_and_the_last_revoked_does_not_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "KNOWN_S", 0.0)
    with served(tmp_path) as here:
        tokens = Tokens(here.store.database)
        assert Client(here.base)("GET", JOBS).status == 200
        secret = add_token(tokens, "shop", "submit")
        assert [Client(here.base, each)("GET", JOBS).status for each in ("", "imax_wrong")] == [401, 401]
        assert Client(here.base, secret)("GET", JOBS).status == 200
        assert Client(here.base, secret, headers={"Host": "posters.example"})("GET", JOBS).status == 200
        tokens.revoke("shop")
        assert [Client(here.base, each)("GET", JOBS).status for each in ("", secret)] == [401, 401]


def test_files_of_the_machine_are_never_allowed_whatever_the_pool_says() -> None:
    assert not limits_of(ServiceSettings(limits="default")).files
    assert limits_of(ServiceSettings(models=("embedded",))).models == ("embedded",)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"waiting": 0}, "waiting 0 must be above 0"),
        ({"webhook_hosts": ("http://x",)}, "is not HOST or HOST:PORT"),
        ({"cors": ("*",)}, "is not an origin"),
        ({"loras": {"a b": "x"}}, "must be letters"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        ServiceSettings(**settings)  # type: ignore[arg-type]


def test_a_token_has_a_known_role_and_limits(here: Served) -> None:
    tokens = Tokens(here.store.database)
    with pytest.raises(BadValue, match="role 'admin' is not known; submit or operate"):
        add_token(tokens, "x", "admin")
    with pytest.raises(BadValue, match="no limit 'size'"):
        add_token(tokens, "x", "submit", {"size": 1})
    name = f"once-{time.time_ns()}"
    add_token(tokens, name, "submit")
    with pytest.raises(BadValue, match="exists"):
        add_token(tokens, name, "submit")
