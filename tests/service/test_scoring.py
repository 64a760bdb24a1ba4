"""POST /v1/score against `winnow score`, its limits, and the pool of scorers."""

import asyncio
import io
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines.errors import UserError
from pipelines.score import TextScorer, score_lines
from quality.service import scoring
from quality.service.corpora import Corpora
from quality.service.settings import DOCUMENTS, TEXT_BYTES, Limits
from tests import corpus
from tests.runs import command
from tests.service.test_jobs_children import wait_for

TEXTS = [
    corpus.prose("asked 1", True),
    corpus.prose("asked 2", False, 3),
    "Ein kurzer Satz über den Fluss und das Gebirge, in dem er entspringt.",
    "x",
    "",
    " \n\t\n ",
    "a\x00b \u202e \ufeff café \U0001f600 " + "word " * 200,
    "\u4e2d\u6587" * 100,
]


def _asked(texts, **more):
    return {"documents": [{"text": text} for text in texts], **more}


def _lines():
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXTS)


def test_scores_are_what_the_command_prints(client, runs, tmp_path):
    lines = tmp_path / "texts.jsonl"
    lines.write_bytes(_lines())
    said = command(["score", str(lines), "--model", str(runs / "tiny"), "--variant", "filtered", "--explain"])
    assert said.returncode == 0, said.stderr
    expected = [json.loads(line) for line in said.stdout.splitlines()]
    answer = client.post("/v1/score", json=_asked(TEXTS, corpus="tiny", variant="filtered", explain=True))
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"corpus": "tiny", "variant": "filtered", "results": expected}


@pytest.mark.parametrize(("name", "variant", "explain"), [("tiny", None, True), ("tiny", "unfiltered", False), (None, None, False)])
def test_scores_are_those_of_the_lines_of_score(client, runs, name, variant, explain):
    """Without a variant, with one that draws nothing, and by the language model alone."""
    scorer = TextScorer(None if name is None else str(runs / name), variant)
    expected = json.loads(json.dumps(list(score_lines(io.BytesIO(_lines()), scorer, explain))))
    answer = client.post("/v1/score", json=_asked(TEXTS, corpus=name, variant=variant, explain=explain))
    assert answer.json() == {"corpus": name, "variant": variant, "results": expected}


def test_what_can_be_asked_is_limited(client):
    most = "é" * (TEXT_BYTES // 2)
    assert client.post("/v1/score", json=_asked(["x"] * DOCUMENTS)).status_code == 200
    assert client.post("/v1/score", content=json.dumps(_asked([most]), ensure_ascii=False).encode(),
                       headers={"Content-Type": "application/json"}).status_code == 200
    for refused, fault in [
        (_asked(["x"] * (DOCUMENTS + 1)), "body.documents: List should have at most 64 items"),
        (_asked([]), "body.documents: List should have at least 1 item"),
        (_asked([most + "x"]), "body.documents.0.text: Value error, a text of more than 1,048,576 bytes"),
        (_asked([3]), "body.documents.0.text: Input should be a valid string"),
        ({"documents": [{"text": "x", "url": "y"}]}, "body.documents.0.url: Extra inputs are not permitted"),
        (_asked(["x"], corpus="../tiny"), "body.corpus: String should match pattern"),
        (_asked(["x"], explain="yes"), "body.explain: Input should be a valid boolean"),
    ]:
        answer = client.post("/v1/score", json=refused)
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(fault)
    for unknown, fault in [
        ({"corpus": "nobody"}, "no such corpus; GET /v1/corpora lists them"),
        ({"corpus": "tiny", "variant": "other"}, "corpus 'tiny' has no such variant; it has filtered, unfiltered"),
        ({"variant": "filtered"}, "no such variant: `variant` needs `corpus`, whose variant it is"),
    ]:
        answer = client.post("/v1/score", json=_asked(["x"], **unknown))
        assert (answer.status_code, answer.json()["detail"]) == (404, fault)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"documents": NaN}', b"[" * 60_000, b'{"documents":[{"text":"\\ud800"}]}',
     b'{"documents": 1' + b"0" * 5000 + b"}"],
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_a_problem_of_one_line(client, body):
    answer = client.post("/v1/score", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "\n" not in answer.json()["detail"]


def test_a_fault_in_a_request_never_repeats_a_text(client):
    secret = "the text that must not come back"
    for body in (
        {"documents": [{"text": [secret]}]},
        {"documents": secret},
        {"documents": [{"text": "x"}], "corpus": secret},
        {"documents": [{"text": secret * 40_000}]},
    ):
        answer = client.post("/v1/score", json=body)
        assert answer.status_code == 422
        assert secret not in answer.text


def test_a_rebuilt_corpus_is_scored_by_its_new_models(serving, copied):
    """The models are those of the manifest: with another classifier and another manifest the same text has another quality."""
    client = serving(copied)
    asked = _asked([TEXTS[0]], corpus="tiny")
    before = client.post("/v1/score", json=asked).json()["results"][0]
    models = copied / "tiny/models"
    for name in ("quality.safetensors", "quality.json"):
        (models / name).unlink()
    assert client.post("/v1/score", json=asked).json()["results"][0] == before
    path = copied / "tiny/manifest.json"
    (copied / "tiny/next").write_bytes(path.read_bytes() + b"\n")
    (copied / "tiny/next").replace(path)
    after = client.post("/v1/score", json=asked).json()["results"][0]
    assert before["quality"] is not None
    assert after == {**before, "quality": None}


def test_models_that_are_gone_are_a_conflict_and_a_missing_language_model_is_unavailable(serving, copied, monkeypatch, tmp_path):
    client = serving(copied)
    shutil.rmtree(copied / "tiny/models")
    answer = client.post("/v1/score", json=_asked(["x"], corpus="tiny"))
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("tiny/models/language.ftz: no such model")
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "empty"))
    answer = client.post("/v1/score", json=_asked(["x"]))
    assert (answer.status_code, "winnow models fetch" in answer.json()["detail"]) == (503, True)


# -- the pool, with scorers that are only told apart ----------------------------------------------------------------------


class _Scorer:
    """Stands for a scorer where a test is about which one is used, and when."""

    def __init__(self, enter=None, leave=None):
        self.enter, self.leave = enter, leave

    def __call__(self, texts, explain):
        if texts == ["fail"]:
            raise UserError("failed")
        if self.enter is not None:
            self.enter.set()
            assert self.leave.wait(60)
        return [{"by": self} for _ in texts]


@pytest.fixture
def tiny(runs):
    return Corpora(runs).get("tiny")


def test_those_who_wait_hold_nobody_up(serving, runs, monkeypatch):
    """All slots are at work, and more wait for one than there are threads for requests: the other routes answer all the same."""
    enter, leave = threading.Event(), threading.Event()
    monkeypatch.setattr(scoring, "_made", lambda corpus, variant: _Scorer(enter, leave))
    client = serving(runs, limits=Limits(scorings=1, wait_seconds=600, bodies=100))
    waiters = client.app.state.service.scorers.slots._free

    def ask(_):
        return client.post("/v1/score", json=_asked(["x"])).status_code

    with ThreadPoolExecutor(61) as pool:
        first = pool.submit(ask, None)
        assert enter.wait(60)
        waiting = [pool.submit(ask, None) for _ in range(60)]
        try:
            wait_for(lambda: len(waiters._waiters or ()) == 60, 60)
            assert client.get("/v1/corpora").status_code == 200
            assert not any(one.done() for one in waiting)
        finally:
            leave.set()
        assert {one.result() for one in [first, *waiting]} == {500}  # of a stand-in for a scorer


def test_too_many_at_once_are_told_to_come_again(serving, runs, monkeypatch):
    enter, leave = threading.Event(), threading.Event()
    monkeypatch.setattr(scoring, "_made", lambda corpus, variant: _Scorer(enter, leave))
    client = serving(runs, limits=Limits(scorings=1, wait_seconds=0))
    thread = threading.Thread(target=client.post, args=("/v1/score",), kwargs={"json": _asked(["x"])})
    thread.start()
    assert enter.wait(60)
    form = {"by": "", "as": "text", "text": "x"}
    for full in (client.post("/v1/score", json=_asked(["y"])), client.post("/score", data=form)):
        assert (full.status_code, full.headers["Retry-After"]) == (429, "2")
        assert full.json()["detail"] == "1 scorings at once, and all are at work; ask again in 2 s"
    leave.set()
    thread.join()
    assert client.post("/v1/score", json=_asked(["y"])).status_code == 500  # of the stand-in: its slot was free


def test_no_scorer_serves_two_requests_at_once(monkeypatch):
    """Eight at once in three slots: a scorer is in one hand only, and no more than three are made."""
    made, at_work, lock = [], set(), threading.Lock()

    class Checked(_Scorer):
        def __call__(self, texts, explain):
            with lock:
                assert self not in at_work
                at_work.add(self)
            threading.Event().wait(0.001)
            with lock:
                at_work.remove(self)
            return super().__call__(texts, explain)

    def make(corpus, variant):
        made.append(Checked())
        return made[-1]

    monkeypatch.setattr(scoring, "_made", make)
    scorers = scoring.Scorers(Limits(scorings=3, wait_seconds=60))

    async def twenty():
        for _ in range(20):
            await scorers.slots.run(lambda: scorers.score(["x"], None, None, False))

    async def play():
        await asyncio.gather(*(twenty() for _ in range(8)))

    asyncio.run(play())
    assert 1 <= len(made) <= 3
    assert not at_work


def test_idle_scorers_are_kept_by_corpus_and_variant_and_the_longest_idle_goes(monkeypatch, tiny):
    monkeypatch.setattr(scoring, "_made", lambda corpus, variant: _Scorer())
    scorers = scoring.Scorers(Limits(idle_scorers=2))

    def by(corpus, variant):
        return scorers.score(["x"], corpus, variant, False)[0]["by"]

    first, second = by(None, None), by(tiny, "filtered")
    assert by(None, None) is first
    assert by(tiny, "filtered") is second
    third = by(tiny, None)  # one too many: `first` was idle longest
    assert by(tiny, "filtered") is second
    assert by(tiny, None) is third
    assert by(None, None) is not first


def test_a_scorer_that_failed_is_not_used_again_and_its_slot_is_free(monkeypatch):
    monkeypatch.setattr(scoring, "_made", lambda corpus, variant: _Scorer())
    scorers = scoring.Scorers(Limits(scorings=1, wait_seconds=0))

    def by(text):
        return asyncio.run(scorers.slots.run(lambda: scorers.score([text], None, None, False)))[0]["by"]

    first = by("x")
    with pytest.raises(UserError):
        by("fail")
    assert by("x") is not first
