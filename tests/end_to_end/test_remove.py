"""Taking back through whole builds: exact counts by hand, what stays untouched byte for byte, and nothing left after a purge."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines import bpe
from pipelines.build import build
from pipelines.errors import UserError
from pipelines.explain import explain, to_text, trace
from pipelines.purge import Purge, purge
from pipelines.recipe_file import parse
from pipelines.schema import content_hash, doc_id
from pipelines.shards import open_shard
from pipelines.store import SIDECAR
from pipelines.verify import verify
from tests import corpus
from tests.faults.forked import Command, kill_at
from tests.runs import ONE_WORKER, TWO_THREADS, differing, hashes, lies, run_build, temporaries

FILES, ROWS = 6, 12  # of the source web
# What stands in planted documents and nowhere else: in text, in text, in URLs, in titles, in ids, in licenses.
PLANTED = ("quincunx", "Zanzibarian", "private-host", "Secret Title", "identity-", "licence-")
HOST, DOC_ID, URL, CONTENT = ("web", "f1.jsonl#2"), ("web", "f3.jsonl#5"), ("web", "f4.jsonl#2"), ("wiki", "wiki.jsonl#4")
REMOVED = (HOST, DOC_ID, URL, CONTENT)
COPY = ("web", "f5.jsonl#7")  # the text of URL
KINDS = {"web": {"doc_id": 1, "host": 1, "url": 1}, "wiki": {"content": 1}}

RECIPE = """
name: taken
sources:
  web: {format: jsonl, root: INPUT/web, paths: [INPUT/web/*.jsonl]}
  wiki: {format: jsonl, paths: [INPUT/wiki.jsonl], paragraphs: true}
limits: {part_bytes: 4096}
fit: {tokenizer: {file: INPUT/tokenizer.json}}
variants:
  everything: {}
  single: {dedup: [exact, near], default: {languages: {keep: [en], min_score: 0}}}
tokens: {validation: 0.2}
"""


def _row(name):
    return {"text": corpus.prose(name, False, 8), "url": f"https://other.example/{name}", "title": name}


def _planted(name, words="The quincunx of Zanzibarian is here."):
    """A document whose every part can be told again."""
    url = f"https://www.private-host.example/{name}" if words else f"https://elsewhere.example/private-host/{name}"
    text = f"{words}\n{corpus.prose(f'planted {name}', False, 8)}".strip()
    return {"text": text, "url": url, "title": f"Secret Title {name}", "id": f"identity-{name}", "license": f"licence-{name}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six files of web and one of wiki, twelve documents each; wiki's paragraphs are kept once, and the removed one repeats one."""
    folder = tmp_path_factory.mktemp("remove")
    files = {f"web/f{file}.jsonl": [_row(f"{file} {number}") for number in range(ROWS)] for file in range(FILES)}
    files["wiki.jsonl"] = [_row(f"wiki {number}") for number in range(ROWS)]
    files["web/f1.jsonl"][2] = _planted("host")
    files["web/f3.jsonl"][5] = {**_planted("doc_id"), "url": None}
    files["web/f4.jsonl"][2] = _planted("url", "")
    files["web/f5.jsonl"][7]["text"] = files["web/f4.jsonl"][2]["text"]
    files["wiki.jsonl"][4] = {**_planted("content"), "url": None}
    for number in (3, 4):
        files["wiki.jsonl"][number]["text"] += "\nOne paragraph that stands in two documents of this source."
    (folder / "web").mkdir()
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [row["text"] for rows in files.values() for row in rows]
    (folder / "tokenizer.json").write_bytes(bpe.save(bpe.train(iter(texts), 400, "split")))
    return folder


def _build(folder, run, *changes, engine=ONE_WORKER):
    """(accounts, stage -> parts that were redone)."""
    said: list[str] = []
    text = RECIPE.replace("INPUT", str(folder))
    accounts = build(parse(text, "taken", changes), str(folder), str(run), engine, said.append)
    return accounts.to_json()["variants"], {line.split()[0]: int(line.split()[1]) for line in said if " redone, " in line}


@pytest.fixture(scope="module")
def plain(folder, tmp_path_factory):
    """A run in which nothing is taken back."""
    run = tmp_path_factory.mktemp("plain") / "run"
    _build(folder, run)
    return run


@pytest.fixture(scope="module")
def taken(folder, plain, tmp_path_factory):
    """(run, accounts, redone): the plain run, built again with a list that has an entry of each kind."""
    run = tmp_path_factory.mktemp("taken") / "run"
    shutil.copytree(plain, run)
    (content,) = explain(str(run), CONTENT[1])
    entries = [
        "# taken back",
        "",
        "host:PRIVATE-host.example",
        doc_id(*DOC_ID).hex(),
        "https://elsewhere.example/private-host/url",
        f"content:{content.document['content_hash']}",
    ]
    (folder / "remove.txt").write_text("\n".join(entries))
    return run, *_build(folder, run, "remove=remove.txt")


@pytest.fixture(scope="module")
def purged(taken, tmp_path_factory):
    """(run, what purge said)."""
    run = tmp_path_factory.mktemp("purged") / "run"
    shutil.copytree(taken[0], run)
    return run, purge(str(run))


def _copied(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def _part_of(run, document):
    """(name of the part, row) of a document, by reading every part."""
    for path in sorted((run / "documents" / document[0]).glob("*.parquet")):
        ids = pq.read_table(path, columns=["doc_id"])["doc_id"].to_pylist()
        if doc_id(*document) in ids:
            return f"{document[0]}/{path.name}", ids.index(doc_id(*document))
    raise AssertionError(document)


def _verdicts(run, variant, document):
    name, row = _part_of(run, document)
    return pq.read_table(run / "decisions" / variant / name).to_pylist()[row]


def _shard(run, variant, source, split):
    shard = open_shard(str(run / f"tokens/{variant}/{split}/{source}-00000-of-00001"))
    return [ids.tobytes() for ids in shard]


def _ids(run, document):
    """Token ids of a document, packed, by its signals."""
    name, row = _part_of(run, document)
    return pq.read_table(run / "signals" / name, columns=["token_ids"])["token_ids"][row].as_py()


# -- removal ----------------------------------------------------------------------------------------------------------------


def test_counts_and_verdicts(plain, taken):
    run, accounts, _ = taken
    dropped = {variant: {source: one["dropped"] for source, one in by.items()} for variant, by in accounts.items()}
    assert dropped == {variant: {"web": {"removed": 3}, "wiki": {"removed": 1}} for variant in ("everything", "single")}
    kept = {variant: {source: one["kept"] for source, one in by.items()} for variant, by in accounts.items()}
    assert kept == {variant: {"web": 69, "wiki": 11} for variant in ("everything", "single")}
    for variant in ("everything", "single"):
        for document in REMOVED:
            found = _verdicts(run, variant, document)
            assert (found["verdict"], found["stage"], found["value"], found["duplicate_of"]) == ("removed", "removal", None, None)
            assert found["split"] == _verdicts(plain, variant, document)["split"]
    assert json.loads((run / "stats.json").read_text())["removal"] == KINDS


def test_what_is_taken_back_is_never_a_keeper(plain, taken):
    assert _verdicts(plain, "single", COPY)["verdict"] == "duplicate_exact"
    assert _verdicts(plain, "single", COPY)["duplicate_of"] == doc_id(*URL)
    assert _verdicts(taken[0], "single", COPY)["verdict"] == "keep"


@pytest.mark.parametrize("variant", ["everything", "single"])
def test_shards_hold_what_they_held_without_the_removed(plain, taken, variant):
    """`single` gets the copy of a removed document in its place in the order."""
    run = taken[0]
    gone = {_ids(plain, document) for document in REMOVED}
    for source in ("web", "wiki"):
        for split in ("train", "validation"):
            before, after = _shard(plain, variant, source, split), _shard(run, variant, source, split)
            copy = _ids(plain, COPY)
            want = [ids for ids in before if ids[:-2] not in gone - {copy}]
            if variant == "everything" and copy in [ids[:-2] for ids in want]:
                want.pop([ids[:-2] for ids in want].index(copy))  # the first of the two is the removed one
            assert sorted(after) == sorted(want)
            if variant == "everything":
                assert after == want


def test_only_what_is_touched_changes(plain, taken):
    run, _, redone = taken
    changed = {name for name in differing(hashes(plain), hashes(run)) if not name.endswith(SIDECAR)}
    parts = {_part_of(run, document)[0] for document in REMOVED}
    assert len(parts) == 4
    with_copy = parts | {_part_of(run, COPY)[0]}
    expected = {f"removals/{name.removesuffix('.parquet')}.json" for name in parts}
    expected |= {f"decisions/everything/{name}" for name in parts} | {f"decisions/single/{name}" for name in with_copy}
    expected |= {f"statistics/{name.removesuffix('.parquet')}.json" for name in with_copy}
    tables = ("documents/", "rejects/", "clusters/", "samples/", "models/", "signals/", "decisions/", "removals/", "statistics/")
    assert {name for name in changed if name.startswith((*tables, "index/"))} == expected
    shards = {
        f"tokens/{variant}/{_verdicts(run, variant, document)['split']}/{document[0]}-00000-of-00001.{end}"
        for variant in ("everything", "single")
        for document in REMOVED
        for end in ("bin", "idx")
    }
    assert {name for name in changed if name.startswith("tokens/") and not name.endswith("blend.json")} <= shards
    assert redone == {
        "extract": 0,
        "cluster": 0,
        "sample": 4,
        "fit": 1,
        "annotate": 0,
        "select": 2 * len(list((run / "documents").rglob("*.parquet"))),
        "tokenize": 2,
        "statistics": 5,
        "report": 1,
    }


def test_a_build_from_nothing_gives_the_same_bytes_as_a_list_that_comes_later(folder, taken, tmp_path):
    _build(folder, tmp_path / "run", "remove=remove.txt", engine=TWO_THREADS)
    assert differing(hashes(taken[0]), hashes(tmp_path / "run")) == set()


def test_an_entry_that_names_nothing_changes_nothing(folder, taken, tmp_path):
    run = _copied(taken[0], tmp_path)
    before = hashes(run)
    listed = (folder / "remove.txt").read_text()
    (tmp_path / "longer.txt").write_text(f"host:nobody.example\n{'00' * 16}\n{listed}\nhttps://nobody.example/\n")
    (folder / "remove.txt").write_text((tmp_path / "longer.txt").read_text())
    try:
        _build(folder, run, "remove=remove.txt")
    finally:
        (folder / "remove.txt").write_text(listed)
    assert differing(before, hashes(run)) == set()


def test_without_the_list_everything_is_back(folder, plain, taken, tmp_path):
    run = _copied(taken[0], tmp_path)
    _build(folder, run)
    assert differing(hashes(plain), hashes(run)) == set()


def test_a_list_that_cannot_be_read_stops_the_build_before_it_begins(folder, tmp_path):
    (folder / "bad.txt").write_text("host:a.example\nwhat is this\n")
    with pytest.raises(UserError, match=r"bad\.txt: line 2: 'what is this' is no doc_id"):
        _build(folder, tmp_path / "run", "remove=bad.txt")
    assert not (tmp_path / "run").exists()


def test_nothing_is_learned_from_what_is_taken_back(folder, taken, tmp_path):
    """All documents without a smaller copy are learned from, and then all but the removed ones."""
    learned = "fit.tokenizer={vocab_size: 400, sample_mb: 1}"

    def sampled(run):
        return {one for path in (run / "samples").rglob("*.parquet") for one in pq.read_table(path)["doc_id"].to_pylist()}

    _build(folder, tmp_path / "run", learned, "tokens.validation=0")
    before, model = sampled(tmp_path / "run"), (tmp_path / "run/models/tokenizer.json").read_bytes()
    removed = {doc_id(*document) for document in REMOVED}
    assert len(before) == 83
    assert removed <= before
    _build(folder, tmp_path / "run", learned, "tokens.validation=0", "remove=remove.txt")
    assert before - sampled(tmp_path / "run") == removed
    assert (tmp_path / "run/models/tokenizer.json").read_bytes() != model


def test_explain_and_the_report_tell_it_and_quote_nothing(taken):
    run = taken[0]
    (found,) = explain(str(run), "https://www.private-host.example/host")
    assert (found.removed_by, found.purged) == ("host", False)
    text = to_text(found)
    assert "  taken back by host\n" in text
    assert "everything: dropped at removal: removed\n" in text
    assert found.to_json()["removed_by"] == "host"
    assert [explain(str(run), document[1])[0].removed_by for document in REMOVED] == ["host", "doc_id", "url", "content"]
    assert explain(str(run), COPY[1])[0].removed_by is None
    page = (run / "report.html").read_text()
    assert "(1 by content, 1 by doc_id, 1 by host, 1 by url)" in page
    for name in ("report.html", "stats.json"):
        quoted = (run / name).read_text()
        assert not [word for word in ("quincunx", "Zanzibarian", "Secret Title") if word in quoted]


# -- purge ------------------------------------------------------------------------------------------------------------------


def _bytes_of(run):
    """name -> bytes of every file of a run, a table also as it reads."""
    found = {}
    for path in sorted(run.rglob("*")):
        if path.is_file():
            more = repr(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else b""
            found[path.relative_to(run).as_posix()] = path.read_bytes() + more
    return found


def _holding(run, needles):
    return {name for name, content in _bytes_of(run).items() if any(needle in content for needle in needles)}


def test_nothing_is_left_of_text_names_and_token_ids(taken, purged):
    run, said = purged
    assert said == Purge(4, 4, 4)
    words = [word.encode() for word in PLANTED]
    ids = [_ids(taken[0], document) for document in (HOST, DOC_ID, CONTENT)]
    before = _holding(taken[0], words)
    assert {name.split("/")[0] for name in before} >= {"documents", "stats.json", "statistics"}
    assert _holding(taken[0], ids)
    assert _holding(run, words) == set()
    assert _holding(run, ids) == set()
    grep = subprocess.run(["grep", "-rlaiE", "|".join(PLANTED), str(run)], capture_output=True, text=True, check=False)
    assert (grep.returncode, grep.stdout) == (1, "")


def test_rows_stay_and_are_empty(taken, purged):
    run = purged[0]
    for document in REMOVED:
        name, row = _part_of(taken[0], document)
        assert _part_of(run, document) == (name, row)
        found = pq.read_table(run / "documents" / name).to_pylist()[row]
        assert found == {
            **dict.fromkeys(found),
            "doc_id": doc_id(*document),
            "source": document[0],
            "locator": document[1],
            "text": "",
            "content_hash": content_hash(b""),
        }
        signals = pq.read_table(run / "signals" / name).to_pylist()[row]
        assert not any(signals.values())
        kept, now = (pq.read_table(one / "documents" / name).to_pylist() for one in (taken[0], run))
        assert [one for place, one in enumerate(now) if place != row] == [one for place, one in enumerate(kept) if place != row]


def test_decisions_and_shards_are_untouched_and_the_run_holds(taken, purged):
    run = purged[0]
    changed = {name for name in differing(hashes(taken[0]), hashes(run)) if not name.endswith(SIDECAR)}
    left_alone = ("decisions/", "tokens/", "samples/", "models/", "rejects/", "removals/")
    assert not [name for name in changed if name.startswith(left_alone)]
    parts = {_part_of(run, document)[0] for document in REMOVED}
    for table in ("documents", "signals"):
        assert {name for name in changed if name.startswith(table + "/")} == {f"{table}/{name}" for name in parts}
    assert {name for name in changed if name.startswith("clusters/")} <= {f"clusters/{_part_of(run, CONTENT)[0]}"}
    assert (lies(run), temporaries(run), (run / "purge.json").exists()) == ([], [], False)
    result = verify(str(run), deep=True)
    assert (result.faults, result.purged) == ([], 4)
    assert result.decoded == {"everything": 80, "single": 80}
    assert "4 documents are purged: nothing is left of their text and signals" in result.to_text()


def test_a_build_afterwards_redoes_nothing(folder, purged, tmp_path):
    run = _copied(purged[0], tmp_path)
    before = hashes(run)
    _, redone = _build(folder, run, "remove=remove.txt")
    assert {stage: count for stage, count in redone.items() if count} == {"fit": 1, "report": 1}
    assert differing(before, hashes(run)) == set()
    assert purge(str(run)) == Purge(0, 0, 4)
    assert differing(before, hashes(run)) == set()


def test_what_is_made_again_from_purged_tables_is_what_purge_left(folder, purged, tmp_path):
    """Signals of an empty text differ from none in nothing but numbers of nothing, and decide nothing."""
    run = _copied(purged[0], tmp_path)
    before = hashes(run)
    for table in ("samples", "decisions", "tokens", "statistics"):
        for sidecar in (run / table).rglob(f"*{SIDECAR}"):
            sidecar.unlink()
    _build(folder, run, "remove=remove.txt")
    assert differing(before, hashes(run)) == set()
    for table in ("signals", "clusters"):
        for sidecar in (run / table).rglob(f"*{SIDECAR}"):
            sidecar.unlink()
    accounts, _ = _build(folder, run, "remove=remove.txt")
    assert accounts["single"]["web"]["dropped"] == {"removed": 3}
    assert verify(str(run), deep=True).faults == []


def test_purged_documents_stay_out_without_the_list_and_come_back_only_from_their_inputs(folder, plain, purged, tmp_path):
    run = _copied(purged[0], tmp_path)
    accounts, _ = _build(folder, run)
    dropped = {source: one["dropped"] for source, one in accounts["everything"].items()}
    assert dropped == {"web": {"removed": 3}, "wiki": {"removed": 1}}
    assert json.loads((run / "stats.json").read_text())["removal"] == KINDS
    shutil.rmtree(run / "documents")
    _build(folder, run)
    assert differing(hashes(plain), hashes(run)) == set()


def test_a_second_list_is_purged_on_top(folder, purged, tmp_path):
    run = _copied(purged[0], tmp_path)
    (folder / "second.txt").write_text("https://other.example/1 3\n".replace(" ", "%20") + doc_id("web", "f1.jsonl#3").hex())
    accounts, _ = _build(folder, run, "remove=second.txt")
    assert accounts["everything"]["web"]["dropped"] == {"removed": 4}
    assert purge(str(run)) == Purge(1, 1, 5)
    assert verify(str(run), deep=True).purged == 5
    _, redone = _build(folder, run, "remove=second.txt")
    assert {stage: count for stage, count in redone.items() if count} == {"fit": 1, "report": 1}


def test_explain_finds_a_purged_document_by_doc_id_and_locator_only(purged):
    run = str(purged[0])
    for name in (HOST[1], doc_id(*HOST).hex()):
        (found,) = explain(run, name)
        assert (found.removed_by, found.purged) == ("host", True)
        assert "taken back by host; purged: neither text nor signals are left" in to_text(found)
        assert "signals:" not in to_text(found)
    with pytest.raises(UserError, match="no document or reject goes by"):
        trace(run, "https://www.private-host.example/host")


def test_a_run_without_removed_documents_is_left_as_it_is(plain, tmp_path):
    run = _copied(plain, tmp_path)
    before = hashes(run)
    assert purge(str(run)) == Purge(0, 0, 0)
    assert differing(before, hashes(run)) == set()


def test_only_a_complete_run_that_is_up_to_date_is_purged(taken, tmp_path):
    with pytest.raises(UserError, match="no complete run"):
        purge(str(tmp_path))
    run = _copied(taken[0], tmp_path)
    sidecar = run / "signals" / (_part_of(run, COPY)[0] + SIDECAR)
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "key": "of another version"}))
    before = hashes(run)
    with pytest.raises(UserError, match=r"signals/.*: made by another version of winnow; run winnow build, then purge"):
        purge(str(run))
    assert differing(before, hashes(run)) == set()


def test_verify_finds_what_a_purge_should_have_taken(purged, tmp_path):
    """A part put back from a copy, with its hash in sidecar and manifest made right."""
    from pipelines.store import Store, TableWriter, reading_table

    run = _copied(purged[0], tmp_path)
    store, (name, row) = Store(str(run)), _part_of(run, HOST)
    path = f"documents/{name}"
    with reading_table(store, path) as file:
        batch = file.read().combine_chunks().to_batches()[0]
    titles = batch.column("title").to_pylist()
    titles[row] = "left over"
    batch = batch.set_column(batch.schema.get_field_index("title"), batch.schema.field("title"), np.array(titles, object).tolist())
    with store.publishing(path) as sink:
        writer = TableWriter(sink, batch.schema)
        writer.write(batch)
        writer.close()
    facts = {**store.sidecar(path), "sha256": sink.result.sha256, "bytes": sink.result.size}
    store.publish_json(path + SIDECAR, facts)
    manifest = store.read_json("manifest.json")
    manifest["files"][path] = facts
    store.publish_json("manifest.json", manifest)
    assert verify(str(run), deep=True).faults == [f"{path}: 1 purged documents still have their title"]


def test_a_corpus_with_learned_models_draws_and_a_mixture_is_purged_and_judged_again(inputs, built, tmp_path):
    """Of 150 documents of seven hosts, those with a number of 3 modulo 7; all signals of theirs are null or 0 afterwards."""
    run, listed = _copied(built, tmp_path), tmp_path / "remove.txt"
    listed.write_text(f"host:host3.example\n{doc_id('wiki', 'w.jsonl#8').hex()}\n")
    mixed = ["mixture={tokens: 20000, weights: {web: 1, wiki: 1}}", f"remove={listed}"]
    accounts, _ = run_build(inputs, run, mixed)
    for by_source in accounts.variants.values():
        assert (by_source["web"].dropped["removed"], by_source["wiki"].dropped["removed"]) == (len(range(3, 150, 7)), 1)
    assert purge(str(run)).documents == 22
    before = hashes(run)
    _, said = run_build(inputs, run, mixed)
    assert [line.split()[1] for line in said if " redone, " in line] == ["0", "0", "0", "1", "0", "0", "0", "0", "1"]
    assert differing(before, hashes(run)) == set()
    accounts, _ = run_build(inputs, run, [*mixed, "variants.filtered.default.quality.keep_rate=0.4"])
    assert [one.dropped["removed"] for one in accounts.variants["filtered"].values()] == [21, 1]
    accounts, _ = run_build(inputs, run, [*mixed, "fit.tokenizer.vocab_size=500"])  # signals anew
    assert [one.dropped["removed"] for one in accounts.variants["filtered"].values()] == [21, 1]
    result = verify(str(run), deep=True)
    assert (result.faults, result.purged) == ([], 22)


# -- kill -9 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_a_purge_that_is_killed_goes_on_to_the_same_bytes(folder, taken, purged, tmp_path):
    """Killed early, then at later and later moments by a fixed draw; no sidecar lies, and a build waits."""
    run, reference, moment = _copied(taken[0], tmp_path), hashes(purged[0]), corpus.Draw("moments of killing a purge")
    kills, seen = 0, set()
    while True:
        command = Command(["purge", str(run)], tmp_path / f"log-{kills}", [kill_at(run, 1 + kills + moment.below(5 + 30 * kills))])
        code = command.wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL, command.said()
        kills += 1
        assert lies(run) == []
        seen.add((run / "purge.json").exists())
        if (run / "purge.json").exists() and not (run / "manifest.json").exists():
            with pytest.raises(UserError, match=r"a purge was cut short here; run winnow purge .*, which goes on"):
                _build(folder, run, "remove=remove.txt")
        assert kills < 100
    assert kills >= 8
    assert seen == {True, False}  # before the journal stood, and after
    assert differing(reference, hashes(run)) == set()
