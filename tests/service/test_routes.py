"""The routes of the core against what the commands say of the same run, and against the run's own files."""

import json
import shutil

import pytest

from pipelines.explain import trace
from pipelines.report.figures import alarms
from tests.runs import command


def test_a_corpus_is_summed_up_as_its_manifest_has_it(client, runs):
    manifest = json.loads((runs / "tiny/manifest.json").read_text())
    (found,) = client.get("/v1/corpora").json()["items"]
    sources = manifest["accounts"]["sources"]
    assert found["id"] == "tiny"
    assert (found["state"], found["partial"], found["recipe"]) == ("complete", False, "tiny")
    assert found["sources"] == 2
    assert found["records"] == sum(one["records"] for one in sources.values()) == 250
    assert found["documents"] == 250
    for variant, by_source in manifest["accounts"]["variants"].items():
        assert found["variants"][variant] == {
            "kept": sum(one["kept"] for one in by_source.values()),
            "tokens": sum(sum(one["tokens"].values()) for one in by_source.values()),
        }
    assert found["alarms"] == alarms(manifest["accounts"], manifest["recipe"]["sources"])
    assert found["built"] == json.loads((runs / "tiny/runs.jsonl").read_text().splitlines()[-1])["ended"]
    assert found["comparisons"] == []
    detail = client.get("/v1/corpora/tiny").json()
    assert detail == {**found, "accounts": manifest["accounts"]}
    for link in found["links"].values():
        assert client.get(link, params={"name": "w.jsonl#0"}).status_code == 200, link


@pytest.mark.parametrize(
    ("name", "file", "kind"),
    [
        ("report", "report.html", "text/html; charset=utf-8"),
        ("card", "card.md", "text/markdown; charset=utf-8"),
        ("stats", "stats.json", "application/json"),
    ],
)
def test_files_of_a_run_come_with_an_etag_and_are_sent_once(client, runs, name, file, kind):
    url = f"/v1/corpora/tiny/{name}"
    first = client.get(url)
    assert first.content == (runs / "tiny" / file).read_bytes()
    assert first.headers["content-type"] == kind
    tag = first.headers["etag"]
    for wanted in (tag, f'"other", W/{tag}', "*"):
        again = client.get(url, headers={"If-None-Match": wanted})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_answers_about_a_corpus_have_etags_that_follow_the_manifest(serving, copied):
    client = serving(copied)
    for url in ("/v1/corpora", "/v1/corpora/tiny", "/v1/corpora/tiny/documents?name=w.jsonl%230"):
        tag = client.get(url).headers["etag"]
        assert client.get(url, headers={"If-None-Match": tag}).status_code == 304
    tag = client.get("/v1/corpora/tiny").headers["etag"]
    path = copied / "tiny/manifest.json"
    changed = {**json.loads(path.read_text())}
    changed["recipe"]["name"] = "other"
    (copied / "tiny/next").write_text(json.dumps(changed))
    (copied / "tiny/next").replace(path)  # as a build publishes it
    found = client.get("/v1/corpora/tiny", headers={"If-None-Match": tag})
    assert (found.status_code, found.json()["recipe"]) == (200, "other")


def test_the_report_is_shown_without_scripts_and_as_of_no_origin(client):
    policy = client.get("/v1/corpora/tiny/report").headers["content-security-policy"].split("; ")
    assert "sandbox" in policy
    assert "default-src 'none'" in policy
    assert not any("script" in one or "connect" in one for one in policy)


def test_pages_of_the_list_hold_every_corpus_once(serving, copied):
    for name in ("b", "c-2", "d_3", "0"):
        shutil.copytree(copied / "tiny", copied / name)
    client = serving(copied)
    seen, after = [], {}
    for _ in range(10):
        page = client.get("/v1/corpora", params={"limit": 2, **after}).json()
        seen.append([one["id"] for one in page["items"]])
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == [["0", "b"], ["c-2", "d_3"], ["tiny"]]


def _explained(client, name):
    answer = client.get("/v1/corpora/tiny/documents", params={"name": name})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_document_is_explained_as_by_the_command(client, runs):
    said = command(["explain", str(runs / "tiny"), "w.jsonl#3", "--json"])
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert _explained(client, "w.jsonl#3") == {"corpus": "tiny", "name": "w.jsonl#3", "partial": False, "found": found}


def test_documents_are_explained_by_locator_url_and_id(client, runs):
    """A kept one, a dropped one, one that has copies: as `trace` has them, by each of their names."""
    verdicts = set()
    for name in ("w.jsonl#3", "a.jsonl#0", "https://host3.example/3"):
        expected = json.loads(json.dumps([one.to_json() for one in trace(str(runs / "tiny"), name)]))
        assert _explained(client, name)["found"] == expected
        assert _explained(client, expected[0]["document"]["doc_id"])["found"] == expected
        verdicts |= {one["verdict"] for one in expected[0]["verdicts"]}
    assert len(verdicts) > 1


def test_of_many_that_go_by_one_name_the_first_are_explained(client, monkeypatch):
    """As of a URL that was crawled over and over; the one document that `trace` finds here, 60 and 50 times, stands for them."""
    asked = []

    def often(folder, name, most):
        asked.append(most)
        return (trace(folder, name) * 60)[:most]

    monkeypatch.setattr("pipelines.explain.trace", often)
    found = _explained(client, "w.jsonl#3")
    assert (len(found["found"]), found["partial"], asked) == (50, True, [51])
    page = client.get("/corpora/tiny/documents", params={"name": "w.jsonl#3"})
    assert "More go by this name than these 50" in page.text
    monkeypatch.setattr("pipelines.explain.trace", lambda folder, name, most: (trace(folder, name) * 50)[:most])
    assert not _explained(client, "w.jsonl#3")["partial"]


def test_a_name_that_nothing_goes_by_is_not_found_and_no_path_is_told(client, runs):
    answer = client.get("/v1/corpora/tiny/documents", params={"name": "nobody"})
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("tiny: no document or reject goes by 'nobody'")
    assert str(runs) not in answer.text


def test_a_damaged_file_of_a_run_is_told_in_one_line_without_the_folder(serving, copied):
    """Bytes flipped in a part of the documents: found by its page checksums, and named below the runs."""
    part = min((copied / "tiny/documents/wiki").glob("*.parquet"))
    content = bytearray(part.read_bytes())
    content[200:260] = bytes(60)
    part.write_bytes(content)
    answer = serving(copied).get("/v1/corpora/tiny/documents", params={"name": "w.jsonl#3"})
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    detail = answer.json()["detail"]
    assert detail.startswith("tiny/documents/wiki/")
    assert ".parquet: damaged (" in detail
    assert str(copied) not in answer.text


def test_health_and_readiness(serving, runs, monkeypatch, tmp_path):
    client = serving(runs)
    assert client.get("/healthz").json() == {"status": "ok", "version": "0.1.0"}
    ready = client.get("/readyz")
    assert (ready.status_code, set(ready.json()["checks"].values())) == (200, {"ok"})
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "empty"))
    failed = client.get("/readyz")
    assert (failed.status_code, failed.headers["content-type"]) == (503, "application/problem+json")
    assert failed.json()["checks"]["state"] == "ok"
    assert "winnow models fetch" in failed.json()["checks"]["language_model"]
    assert client.get("/healthz").status_code == 200
