"""What stands around every request: hosts, tokens, other sites, bodies, headers, failures, logs and metrics."""

import asyncio
import base64
import dataclasses
import json
import logging

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.datastructures import Headers

from quality.service import auth
from quality.service.app import create_app
from quality.service.problems import Problem, one_line
from quality.service.settings import Limits
from tests.service.conftest import BASE, PATIENT, TOKEN

BEARER = {"Authorization": f"Bearer {TOKEN}"}
SCORE = {"documents": [{"text": "The river rises in the mountains."}]}
SECRET = "a text that nobody else may read"


def _is_problem(answer, status):
    """Every error is this object with one line in it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert (found["type"], found["status"]) == ("about:blank", status)
    assert found["detail"]
    assert "\n" not in found["detail"]
    return found["detail"]


# -- hosts ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "127.0.0.1", "127.8.9.1"])
def test_names_of_the_loopback_are_answered(client, host):
    assert client.get("/v1/corpora", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example",
     "10.0.0.1", "", "[::2]", "@localhost"],
)
def test_a_name_that_was_bound_again_to_the_loopback_reads_nothing(client, host):
    """DNS rebinding: the request reaches us, but names another host."""
    detail = _is_problem(client.get("/v1/corpora", headers={"Host": host}), 403)
    assert "Host" in detail


# -- tokens -----------------------------------------------------------------------------------------------------------------


def test_on_loopback_reads_are_open_and_writes_need_the_token(serving, runs):
    client = serving(runs, token=TOKEN)
    assert client.get("/v1/corpora/tiny").status_code == 200
    assert client.post("/v1/score", json=SCORE).status_code == 200
    body = {"recipe": "no-such-recipe", "run": "new"}
    basic = {"Authorization": "Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode()}
    for headers in ({}, {"Authorization": "Bearer " + TOKEN[:-1]}, {"Authorization": TOKEN}, {"Authorization": "Bearer "}, basic):
        answer = client.post("/v1/builds", json=body, headers=headers)
        _is_problem(answer, 401)
        assert answer.headers["www-authenticate"] == 'Bearer realm="winnow"'
    assert client.post("/v1/builds", json=body, headers=BEARER).status_code == 422  # let in: there is no such recipe
    assert client.post("/v1/builds", json=body, headers={"Authorization": f"bearer  {TOKEN}"}).status_code == 422


def test_elsewhere_everything_but_healthz_needs_the_token(serving, runs):
    client = serving(runs, base="http://corpora.example", host="0.0.0.0", token=TOKEN)
    assert client.get("/healthz").status_code == 200
    paths = ["/", "/readyz", "/metrics", "/openapi.json", "/v1/corpora", "/v1/corpora/tiny/report", "/v1/jobs", "/nothing"]
    for path in paths:
        answer = client.get(path)
        _is_problem(answer, 401)
        assert answer.headers["www-authenticate"] == 'Bearer realm="winnow", Basic realm="winnow"'
        assert client.get(path, headers=BEARER).status_code in (200, 404)
        for password, expected in ((TOKEN, (200, 404)), ("other", (401,)), ("", (401,))):
            assert client.get(path, auth=("any", password)).status_code in expected
    _is_problem(client.post("/v1/score", json=SCORE), 401)
    _is_problem(client.post("/v1/score", json=SCORE, auth=("any", TOKEN)), 401)  # what a browser sends by itself is no write
    assert client.post("/v1/score", json=SCORE, headers=BEARER).status_code == 200


@given(st.text(max_size=80))
def test_no_header_but_the_token_is_the_token(given_header):
    settings = _Elsewhere()
    for kind in ("", "Bearer ", "Basic "):
        headers = Headers(raw=[(b"authorization", (kind + given_header).encode("utf-8"))])
        with pytest.raises(Problem) as caught:
            auth.check(settings, "GET", "/v1/corpora", headers)
        assert caught.value.status == 401


class _Elsewhere:
    loopback, token = False, TOKEN


# -- other sites ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": BASE},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://localhost:8080"},
    ],
)
def test_a_page_of_another_site_starts_nothing(client, headers):
    for method, path in (("POST", "/v1/builds"), ("POST", "/v1/comparisons"), ("POST", "/v1/score"), ("DELETE", "/v1/jobs/x")):
        _is_problem(client.request(method, path, headers=headers, json={}), 403)
    assert client.get("/v1/corpora", headers=headers).status_code == 200  # which that page cannot read: no CORS header
    assert not any(name.startswith("access-control") for name in client.get("/v1/corpora", headers=headers).headers)


@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": BASE},
     {"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.example"}],
)
def test_the_services_own_pages_and_programs_may(client, headers):
    assert client.post("/v1/score", json=SCORE, headers=headers).status_code == 200


def test_a_form_of_another_site_that_looks_like_json_is_refused(client):
    """What a form can send without asking first: text/plain with JSON in it."""
    answer = client.post("/v1/score", content=json.dumps(SCORE), headers={"Content-Type": "text/plain"})
    _is_problem(answer, 422)


# -- bodies -----------------------------------------------------------------------------------------------------------------

SMALL = dataclasses.replace(PATIENT, body_bytes=2000, small_body_bytes=200)


def test_a_body_over_the_limit_is_refused_by_its_stated_size_and_by_its_real_one(serving, runs):
    client = serving(runs, limits=SMALL)
    whole = json.dumps(SCORE).encode()
    padded = whole + b" " * (2000 - len(whole))
    kind = {"Content-Type": "application/json"}
    assert client.post("/v1/score", content=padded, headers=kind).status_code == 200
    for content in (padded + b" ", iter([padded, b" "])):
        answer = client.post("/v1/score", content=content, headers=kind)
        assert "2,000 bytes" in _is_problem(answer, 413)
        assert answer.headers["connection"] == "close"
    for path in ("/v1/builds", "/v1/corpora", "/nothing"):
        _is_problem(client.post(path, content=b"x" * 201), 413)
    lying = client.post("/v1/score", content=iter([b"{}"]), headers={**kind, "Content-Length": "9" * 40})
    _is_problem(lying, 413)


async def _ask(app, messages, headers=(), path="/v1/score"):
    """(status, detail) that the application answers to a body that arrives as `messages` come."""
    sent = []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"transfer-encoding", b"chunked"), *headers],
    }  # fmt: skip

    async def send(message):
        sent.append(message)

    await app(scope, messages, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body)["detail"]


def test_a_body_that_never_ends_is_given_up_and_one_that_breaks_off_too(settings_of, runs):
    app = create_app(settings_of(runs, limits=Limits(body_seconds=0.05)))

    async def forever():
        await asyncio.sleep(60)

    async def gone():
        return {"type": "http.disconnect"}

    assert asyncio.run(_ask(app, forever)) == (408, "the body did not arrive within 0.05 s")
    assert asyncio.run(_ask(app, gone)) == (400, "the body ended early")


def test_bodies_at_once_are_limited_and_room_is_given_back(settings_of, runs):
    """Two requests hold their bodies back; a third is told to come again; when they end there is room."""
    app = create_app(settings_of(runs, limits=Limits(bodies=2)))

    async def play():
        go = asyncio.Event()

        async def held():
            await go.wait()
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def prompt():
            return {"type": "http.request", "body": b"{}", "more_body": False}

        waiting = [asyncio.create_task(_ask(app, held)) for _ in range(2)]
        await asyncio.sleep(0.05)
        third = await _ask(app, prompt)
        go.set()
        return third, [(await one)[0] for one in waiting], (await _ask(app, prompt))[0]

    third, held, after = asyncio.run(play())
    assert third == (429, "too many requests with a body at once; ask again in 2 s")
    assert (held, after) == ([422, 422], 422)


# -- answers ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/v1/corpora", 200),
        ("GET", "/nothing", 404),
        ("PATCH", "/v1/corpora", 405),
        ("POST", "/v1/score", 422),
    ],
)
def test_every_answer_carries_the_headers_of_security(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-frame-options"] == "DENY"
    assert "cache-control" in answer.headers
    if status >= 400:
        _is_problem(answer, status)


@pytest.mark.parametrize("path", ["/healthz", "/", "/v1/corpora/tiny/report", "/metrics", "/nothing", "/v1/score"])
def test_head_says_what_get_says_without_the_body(client, path):
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    for name in ("content-type", "etag", "cache-control", "content-security-policy"):
        assert head.headers.get(name) == got.headers.get(name), name
    if path != "/metrics":  # which has counted one more by then
        assert head.headers["content-length"] == str(len(got.content))


def test_nothing_of_a_body_is_sent_for_head_and_a_stream_ends(settings_of, runs):
    app = create_app(settings_of(runs))
    job, _ = app.state.service.jobs.submit("build", "a", {"recipe": "sample", "run": "a"})

    async def ask(path):
        sent, ended = [], asyncio.Event()

        async def send(message):
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                ended.set()

        async def receive():  # as a server tells it: nothing comes before the answer has ended
            await ended.wait()
            return {"type": "http.disconnect"}

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "HEAD", "scheme": "http", "path": path,
            "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8080), "headers": [(b"host", b"127.0.0.1")],
        }  # fmt: skip
        await asyncio.wait_for(app(scope, receive, send), 60)
        return [message["type"] for message in sent], sent[0]["status"], b"".join(one.get("body", b"") for one in sent)

    for path in ("/v1/corpora/tiny", f"/v1/jobs/{job.id}/events"):
        assert asyncio.run(ask(path)) == (["http.response.start", "http.response.body"], 200, b"")


def test_a_method_that_is_not_there_is_told_which_are(client):
    answer = client.request("PATCH", "/v1/corpora")
    _is_problem(answer, 405)
    assert answer.headers["allow"] == "GET"


def test_a_failure_is_one_line_here_and_in_the_log_without_the_text(serving, runs, monkeypatch, caplog):
    """An exception whose message holds a document's text: neither the client nor the log sees it."""
    client = serving(runs)

    def fail(*arguments):
        raise RuntimeError(SECRET)

    monkeypatch.setattr("quality.service.scoring.Scorers.score", fail)
    with caplog.at_level(logging.DEBUG):
        answer = client.post("/v1/score", json={"documents": [{"text": SECRET}]})
    assert _is_problem(answer, 500) == "the service failed; its log says where"
    assert answer.headers["x-content-type-options"] == "nosniff"
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert line.startswith("POST /v1/score failed: RuntimeError at test_guard.py:")
    assert SECRET not in caplog.text


def test_neither_texts_nor_names_of_documents_get_into_the_log(client, caplog):
    with caplog.at_level(logging.DEBUG):
        client.post("/v1/score", json={"documents": [{"text": SECRET}], "explain": True})
        client.get("/v1/corpora/tiny/documents", params={"name": SECRET})
        client.get(f"/{SECRET}")
        client.post("/v1/score", content=SECRET)
        client.request("SECRET", "/healthz")
    said = [record.getMessage() for record in caplog.records if record.name == "winnow.service"]
    assert [line.rsplit(" ", 2)[0] for line in said if " ms" in line] == [
        "POST /v1/score 200",
        "GET /v1/corpora/{id}/documents 404",
        "GET unmatched 404",
        "POST /v1/score 422",
        "other /healthz 405",
    ]
    assert not any(SECRET in record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))


def test_metrics_count_by_route_and_their_labels_are_bounded(client):
    for number in range(5):
        client.get(f"/v1/corpora/unknown-{number}")
        client.get(f"/nothing/{number}")
        client.request(f"ODD{number}", "/healthz")
    client.post("/v1/score", json={"documents": [{"text": "x"}] * 3})
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    requests = [one for one in families["winnow_requests"].samples if one.name.endswith("total")]
    counted = {tuple(sorted(one.labels.items())): one.value for one in requests}

    def of(method, route, status):
        return counted[(("method", method), ("route", route), ("status", status))]

    assert of("GET", "/v1/corpora/{id}", "404") == 5
    assert of("GET", "unmatched", "404") == 5
    assert of("other", "/healthz", "405") == 5
    assert of("POST", "/v1/score", "200") == 1
    assert len(counted) == 4
    assert families["process_open_fds"].samples[0].value > 0
    (scored,) = [one.value for one in families["winnow_documents_scored"].samples if one.name.endswith("total")]
    assert scored == 3
    assert {one.labels["state"] for one in families["winnow_jobs"].samples} >= {"queued", "running", "succeeded", "failed"}


def test_a_file_of_jobs_that_cannot_be_used_is_a_503_everywhere_and_the_metrics_say_so(serving, runs):
    """As where somebody has moved its table away."""
    client = serving(runs)
    client.get("/v1/corpora")
    service = client.app.state.service
    service.runner.stop()
    assert "winnow_jobs_up 1.0" in client.get("/metrics").text
    service.jobs._database.execute("ALTER TABLE jobs RENAME TO others")
    job = "0" * 32
    for path in ("/", "/jobs", f"/jobs/{job}", "/corpora/tiny", "/v1/jobs", f"/v1/jobs/{job}", f"/v1/jobs/{job}/events"):
        for headers in ({}, {"Accept": "text/html"}):
            answer = client.get(path, headers=headers)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "30"), path
            assert "jobs.sqlite: no such table: jobs; see that the folder" in answer.text
    metrics = client.get("/metrics")
    families = {family.name for family in text_string_to_metric_families(metrics.text)}
    assert (metrics.status_code, "winnow_requests" in families, "winnow_jobs" in families) == (200, True, False)
    assert "winnow_jobs_up 0.0" in metrics.text


def test_two_applications_count_apart(serving, runs, settings_of):
    client = serving(runs)
    client.get("/healthz")
    other = create_app(dataclasses.replace(settings_of(runs), state=settings_of(runs).state / "other"))
    assert b'route="/healthz"' in client.app.state.service.metrics.text()
    assert b'route="/healthz"' not in other.state.service.metrics.text()


@given(st.text(max_size=2000))
def test_one_line_is_one_printable_line(text):
    line = one_line(text)
    assert len(line) <= 500
    assert all(character.isprintable() for character in line)


def test_a_stream_without_end_is_not_read_to_its_end(settings_of, runs):
    """A body that goes on for ever is refused as soon as it is too large, and read no further."""
    app = create_app(settings_of(runs))
    read = 0

    async def endless():
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b" " * (1 << 20), "more_body": True}

    assert asyncio.run(_ask(app, endless))[0] == 413
    assert read == 17


def test_an_asgi_client_sees_the_same(settings_of, runs):
    """Over httpx's own ASGI transport, without a life span: reads work, and readyz says that nothing runs the jobs."""
    app = create_app(settings_of(runs))

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
            return (await client.get("/v1/corpora/tiny")).status_code, (await client.get("/readyz")).json()

    status, ready = asyncio.run(ask())
    assert status == 200
    assert ready["checks"]["jobs"] == "nothing runs the jobs; start the service again"
