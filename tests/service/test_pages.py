"""The pages without a browser: what they say in words, the policy that they carry, and what their forms make of a request.

In a browser they are tested by tests/browser/test_service_pages.py.
"""

import base64
import hashlib
import json
import re
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality import rules
from quality.service import drawing, judged, views, views_jobs
from quality.service.jobs import Job
from quality.service.progress import Progress
from tests.service.conftest import TOKEN

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
_RULES = [rule for family in rules.FAMILIES.values() for rule in family]
_BOUNDS = sorted({bound for rule in _RULES for bound in (rule.low, rule.high) if bound is not None})
_HOSTILE = "<script>alert(1)</script>\u202egnp.exe\x07"


# -- words ------------------------------------------------------------------------------------------------------------------


@given(st.sampled_from(_RULES), st.sampled_from(_BOUNDS) | st.floats(0, 1e6, width=32), st.sampled_from([np.float32, np.int64]))
def test_a_rule_is_broken_where_the_judge_says_so(rule, value, kind):
    """Against `quality.rules.judge`, on columns as they are stored: float32, or counts."""
    column = np.array([value]).astype(kind)
    failed, _, _ = rules.judge(pa.RecordBatch.from_arrays([pa.array(column)], [rule.signal]), [rule])
    assert judged.breaks(rule, column.tolist()[0]) == (failed[0] == 0)


@given(st.floats(0, 1e7))
def test_a_duration_is_said_in_its_two_largest_units(seconds):
    sizes = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
    parts = re.findall(r"(\d+)\u00a0(d|h|min|s)", views.duration(seconds))
    said = sum(int(count) * sizes[unit] for count, unit in parts)
    least = max(size for size in sizes.values() if size <= max(seconds, 1))
    assert 1 <= len(parts) <= 2
    assert 0 <= seconds - said < max(1, {86_400: 3_600, 3_600: 60, 60: 1, 1: 1}[least])


@pytest.mark.parametrize(
    ("given_time", "text", "machine"),
    [
        (0.0, "1 Jan 1970, 00:00 UTC", "1970-01-01T00:00:00Z"),
        ("2026-11-25T21:35:09Z", "25 Nov 2026, 21:35 UTC", "2026-11-25T21:35:09Z"),
        ("2026-11-25T23:35:09+02:00", "25 Nov 2026, 21:35 UTC", "2026-11-25T21:35:09Z"),
    ],
)
def test_a_time_is_said_in_utc(given_time, text, machine):
    assert views.moment(given_time) == {"text": text, "machine": machine}


def test_what_moved_the_quality_is_drawn_from_zero():
    """Bars of 0 to 3 and of -1 to 0 on one scale of 4, the farthest to the right first; what moved nothing is left out."""
    rows = judged.contributions([("down", -1.0), ("none", 0.0), ("up", 3.0)])
    assert [(row["text"], row["amount"]) for row in rows] == [("up", "+3.000"), ("down", "-1.000")]
    assert '<path class="k" d="M25.00 0h75.00v1H25.00z">' in rows[0]["bar"]
    assert '<path class="s-quality" d="M0.00 0h25.00v1H0.00z">' in rows[1]["bar"]


def _job(**changes):
    first = {"id": "0" * 32, "kind": "build", "corpus": "demo", "request": {"recipe": "sample", "run": "demo"}, "key": None}
    then = {"state": "running", "created": 0.0, "started": 10.0, "ended": None, "pid": 1, "born": "", "stopping": False}
    return Job(**{**first, **then, "losses": 0, "detail": "", "comparison": None, **changes})


def test_a_running_build_says_which_steps_are_done():
    found = views_jobs.whole(_job(), Progress("cluster", 3, 9), 75.0, None, "")
    assert found["steps"][:4] == [("prepare", "done"), ("extract", "done"), ("cluster", "current"), ("sample", "next")]
    assert (found["at"], found["percent"]) == ("cluster, 3 of 9", 33)
    assert found["said"] == "At work for 1\u00a0min 5\u00a0s."
    assert found["results"] == [("The corpus", "/corpora/demo"), ("Its report", "/v1/corpora/demo/report")]


@pytest.mark.parametrize(
    ("changes", "at", "said"),
    [
        ({"state": "queued", "started": None}, Progress(), "It waits for its turn"),
        ({"state": "queued", "started": None, "losses": 1}, Progress(), "goes on where it stopped"),
        ({"stopping": True}, Progress("fit"), "It is being stopped."),
        ({"kind": "compare", "request": {}}, Progress("runs", 1, 4, 90.0), "About 1\u00a0min 30\u00a0s to go."),
        ({"state": "failed", "ended": 70.0}, Progress("fit", 0, 1), "Ended 1 Jan 1970, 00:01 UTC, after 1\u00a0min."),
        ({"state": "cancelled", "started": None, "ended": 70.0}, Progress(), "Ended 1 Jan 1970, 00:01 UTC."),
    ],
)
def test_a_job_says_where_it_stands(changes, at, said):
    assert said in views_jobs.whole(_job(**changes), at, 75.0, None, "")["said"]


def test_of_a_long_log_the_last_lines_are_shown():
    lines = "".join(f"line {number}\n" for number in range(5000))
    shown = views_jobs.whole(_job(), Progress(), 75.0, None, lines)["log"].splitlines()
    assert shown[0] == "[…]"
    assert shown[1:] == lines.splitlines()[-len(shown) + 1 :]


# -- drawing ----------------------------------------------------------------------------------------------------------------


def test_every_text_that_is_written_is_escaped_and_shown():
    page = drawing.page("problem", here="", title=_HOSTILE, detail=_HOSTILE, code=404)
    assert page.count("<script>") == 1
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;\u25a1gnp.exe\u25a1") == 3
    assert not {"\u202e", "\x07"} & set(page)


@pytest.mark.parametrize("path", ["/", "/score", "/recipes", "/jobs", "/corpora/tiny", "/nowhere"])
def test_a_page_lets_in_its_own_style_and_script_and_nothing_else(client, path):
    answer = client.get(path, headers={"Accept": "text/html"})
    policy = answer.headers["content-security-policy"]
    for element, rule in (("style", "style-src"), ("script", "script-src")):
        (inner,) = re.findall(rf"<{element}>(.*?)</{element}>", answer.text, re.S)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not re.search(r"<[^>]+\s(style|on\w+)=", answer.text.replace("<style>", ""))
    assert answer.headers["referrer-policy"] == "same-origin"  # under which a form says its origin, where no Sec-Fetch-Site does
    assert 'name="referrer"' not in answer.text
    assert len(answer.content) < 200_000


# -- errors -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/corpora/none", "/corpora/tiny/documents?name=none", "/jobs/" + "0" * 32, "/nowhere"])
def test_a_missing_page_is_a_page_for_a_browser(client, path):
    answer = client.get(path, headers={"Accept": "text/html,*/*"})
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"run=x", {"Content-Type": "application/json"}, 415),
        (b"run=x", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
        (b"run=%ff", {}, 422),
        ("run=\u00e9".encode(), {}, 422),
        (urlencode([(f"f{n}", "x") for n in range(65)]).encode(), {}, 422),
        (b"", {}, 422),
        (b"recipe=nothing&run=x", {}, 422),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(client, body, headers, status):
    answer = client.post("/recipes", content=body, headers={**FORM, **headers})
    assert answer.status_code == status
    assert client.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(("field", "value"), [("seeds", "two"), ("seeds", "41"), ("tokens", "0"), ("budget", "soon")])
def test_a_comparison_that_cannot_be_names_its_field(client, field, value):
    answer = client.post("/corpora/tiny/comparisons", content=urlencode({field: value}), headers={**FORM, "Accept": "*/*"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(field)


def _lines(client, given):
    """(first cell, second cell) of every row of the answer to JSON lines."""
    answer = client.post("/score", content=urlencode({"by": "", "as": "lines", "text": given}), headers=FORM)
    assert answer.status_code == 200, answer.text
    return re.findall(r"<tr[^>]*><th[^>]*>(.*?)</th><td[^>]*>(.*?)</td>", answer.text)


def test_lines_of_the_form_end_where_those_of_the_command_do(client):
    """At a line feed alone: what else Python calls the end of a line stands within strings of JSON."""
    texts = [f"The river rises {end} in the mountains" for end in "\u2028\u2029\x85"]
    rows = _lines(client, "".join(json.dumps({"text": text}, ensure_ascii=False) + "\r\n" for text in texts))
    assert len(rows) == 3
    assert not any("malformed" in cell for row in rows for cell in row)


def test_a_line_that_is_no_json_is_told_by_its_number(client):
    good = json.dumps({"text": "The river rises in the mountains."})
    (_, told) = _lines(client, f"{good}\n\n \n{{bad\n")
    assert (told[0], "malformed_json" in told[1]) == ("line 4", True)
    fields = urlencode({"by": "", "as": "lines", "text": f"{good}\n\n" * 65})
    answer = client.post("/score", content=fields, headers=FORM)
    assert (answer.status_code, "65 lines; give at most 64 at a time" in answer.text) == (413, True)


def test_the_judge_that_was_chosen_stands_in_a_list_that_is_cut(client, monkeypatch):
    """Which says how many it leaves out: tiny has two variants and can be asked for no verdict, besides the language model."""
    monkeypatch.setattr("quality.service.pages._JUDGES", 2)
    for by, shown in (("tiny/filtered", ["", "tiny/filtered"]), ("tiny", ["", "tiny/filtered", "tiny"])):
        page = client.get("/score", params={"by": by}).text
        options = re.findall(r'<option value="([^"]*)"( selected)?>', page)
        assert [value for value, _ in options] == shown
        assert [value for value, selected in options if selected] == [by]
        assert f"{4 - len(shown)} more than stand here" in page
    monkeypatch.undo()
    assert "more than stand here" not in client.get("/score").text


# -- writes -----------------------------------------------------------------------------------------------------------------


def test_a_form_becomes_the_request_of_the_api_once(client):
    """A button pressed twice sends the same hidden word, and makes one job."""
    fields = {"recipe": "sample", "run": " again ", "overrides": "\r\nseed=2\r\n\r\ntokens.shards=1\r\n", "once": "a" * 32}
    answers = [client.post("/recipes", content=urlencode(fields), headers=FORM) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 303]
    assert answers[0].headers["location"] == answers[1].headers["location"]
    (job,) = client.get("/v1/jobs").json()["items"]
    assert answers[0].headers["location"] == f"/jobs/{job['id']}"
    assert job["request"] == {"recipe": "sample", "run": "again", "overrides": ["seed=2", "tokens.shards=1"]}
    assert client.post(f"/jobs/{job['id']}/cancel", content=b"", headers=FORM).status_code == 303


def test_a_comparison_asks_for_what_was_filled_in(client):
    fields = {"first": "filtered", "second": "unfiltered", "seeds": " 2 ", "tokens": "", "controls": "none", "budget": "1s"}
    answer = client.post("/corpora/tiny/comparisons", content=urlencode(fields), headers=FORM)
    assert answer.status_code == 303
    (job,) = client.get("/v1/jobs").json()["items"]
    wanted = {"corpus": "tiny", "arms": ["filtered", "unfiltered"], "seeds": 2, "controls": [], "budget": "1s"}
    assert job["request"] == wanted
    client.delete(f"/v1/jobs/{job['id']}")


def test_on_another_address_a_text_is_scored_by_those_who_have_the_token(serving, runs):
    """There a browser reads by HTTP Basic, and nothing that it sends by itself is enough for a POST."""
    client = serving(runs, "http://winnow.example", host="0.0.0.0", token=TOKEN)
    basic = {"Authorization": "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()}
    assert client.get("/score", headers=FORM).status_code == 401
    assert client.get("/score", headers={**FORM, **basic}).text.count('<input type="password" data-token') == 1
    fields = urlencode({"by": "tiny/filtered", "text": "The river rises in the mountains and flows to the sea."})
    assert client.post("/score", content=fields, headers={**FORM, **basic}).status_code == 401
    answer = client.post("/score", content=fields, headers={**FORM, "Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert "Verdict of filtered" in answer.text


def test_with_a_token_a_form_needs_it_too(serving, runs):
    client = serving(runs, token=TOKEN)
    fields = urlencode({"recipe": "sample", "run": "x"})
    page = client.get("/recipes", headers={"Accept": "text/html"}).text
    assert page.count('<input type="password" data-token') == 1
    for headers in ({}, {"Authorization": "Bearer " + "x" * 32}, {"Authorization": f"Basic {TOKEN}"}):
        assert client.post("/recipes", content=fields, headers={**FORM, **headers}).status_code == 401
    started = client.post("/recipes", content=fields, headers={**FORM, "Authorization": f"Bearer {TOKEN}"})
    assert started.status_code == 303
    assert client.post(started.headers["location"] + "/cancel", content=b"", headers=FORM).status_code == 401
    client.delete("/v1" + started.headers["location"], headers={"Authorization": f"Bearer {TOKEN}"})
