"""train.compare.sets: files built to have known clusters and copies, and a real small run against its own token shards."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import models
from pipelines.recipe_compare import Compare
from pipelines.schema import TRAIN, VALIDATION
from pipelines.store import read_columns, reading_table
from tests.errors import one_line
from train import evaluate
from train.compare import sets
from train.compare.documents import Run
from train.compare.sets import SetSpec
from train.corpus import open_corpus
from train.evaluate import Document, Encoder


def encoder_of(run):
    return Encoder(run.store.read(models.TOKENIZER), "the run's")


def write(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def document(doc, text, cluster=None, domain="news"):
    return Document(domain, doc, cluster or doc, text, np.zeros(0, np.int64))


def batch(*texts):
    return pa.array(texts, pa.large_string())


def numbered(first, count):
    return " ".join(f"w{number}" for number in range(first, first + count))


@pytest.fixture(scope="module")
def small(built):
    return Run.open(str(built))


@pytest.fixture(scope="module")
def encoder(small):
    return encoder_of(small)


# -- files --------------------------------------------------------------------------------------------------------------------


def test_a_set_of_files(tmp_path, encoder):
    """Two files, a thread across both, a copy in each: names by file and line, copies counted, ids the encoder's."""
    first = write(
        tmp_path / "a.jsonl", {"text": "one"}, {"text": "two", "cluster": 7}, {"text": "three", "cluster": "t"}, {"text": "one"}
    )
    second = write(tmp_path / "deep" / "b.jsonl", {"text": "two"}, {"text": "four", "cluster": "t"}, {"text": "five"})
    found = sets.read_set(SetSpec("news", "unseen", (second, first)), encoder, 1000)
    assert {(one.doc, one.cluster, one.text) for one in found.documents} == {
        ("a.jsonl#0", "news/a.jsonl#0", "one"),
        ("a.jsonl#1", "7", "two"),
        ("a.jsonl#2", "t", "three"),
        ("b.jsonl#1", "t", "four"),
        ("b.jsonl#2", "news/b.jsonl#2", "five"),
    }
    assert (found.duplicates, found.left_out) == (2, 0)
    assert {one.domain for one in found.documents} == {"news"}
    for one in found.documents:
        assert one.ids.tolist() == encoder(one.text).tolist()
    thread = [place for place, one in enumerate(found.documents) if one.cluster == "t"]
    assert thread[1] == thread[0] + 1


def test_neither_the_order_nor_the_place_of_files_changes_anything(tmp_path, encoder):
    draw, paths, moved = random.Random(5), [], []
    for name in "cab":
        records = [{"text": f"{name} {number} " + "x" * draw.randrange(40), "cluster": draw.randrange(12)} for number in range(30)]
        paths.append(write(tmp_path / name / f"{name}.jsonl", *records))
        moved.append(write(tmp_path / "moved" / f"{name}.jsonl", *records))
    orders = (paths, paths[::-1], moved[1:] + moved[:1])
    read = [sets.read_set(SetSpec("s", "junk", tuple(files)), encoder, 900) for files in orders]
    told = [([(one.doc, one.cluster, one.text) for one in found.documents], found.duplicates, found.left_out) for found in read]
    assert told[0] == told[1] == told[2]
    assert told[0][2] > 0
    other = sets.read_set(SetSpec("t", "junk", tuple(paths)), encoder, 900)
    assert [one.doc for one in other.documents] != [doc for doc, _, _ in told[0][0]]  # the set's name is in the hash


def test_the_digests_are_of_contents_and_name_no_place(tmp_path):
    path = write(tmp_path / "b.jsonl", {"text": "x"})
    other = write(tmp_path / "a" / "a.jsonl", {"text": "y"})
    digests = [hashlib.sha256(content).hexdigest() for content in (b'{"text": "y"}\n', b'{"text": "x"}\n')]
    wanted = [["a.jsonl", digests[0]], ["b.jsonl", digests[1]]]
    assert SetSpec("s", "web", (path, other)).digests() == wanted
    assert SetSpec("s", "web", variant="filtered").digests() == []


def test_what_a_set_of_files_cannot_be(tmp_path, encoder):
    def read(*files):
        return lambda: sets.read_set(SetSpec("s", "web", files), encoder, 100)

    missing, folder = str(tmp_path / "none.jsonl"), str(tmp_path)
    one_line(read(missing), missing, "cannot be read", "give a file of JSON lines")
    one_line(SetSpec("s", "web", (missing,)).digests, "compare.sets.s", missing, "cannot be read")
    one_line(read(folder), folder, "cannot be read")
    bare = write(tmp_path / "bare.jsonl", {"text": "x"}, {"body": "x"})
    one_line(read(bare), bare, "line 2", '"text"')
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "x"}\n{"text":\n')
    one_line(read(str(broken)), broken, "line 2 is not JSON")
    empty = write(tmp_path / "empty.jsonl")
    one_line(read(empty), empty, "no documents")
    twin = write(tmp_path / "deep" / "bare.jsonl", {"text": "x"})
    one_line(read(bare, twin), "compare.sets.s", bare, twin, "rename one")
    one_line(read(twin, twin), "compare.sets.s", twin, "rename one")


def test_a_recipes_sets_by_name(tmp_path):
    asked = Compare.model_validate(
        {
            "arms": ["filtered", "other/run:unfiltered"],
            "sets": {
                "web": {"group": "web"},
                "news": {"group": "unseen", "files": ["n.jsonl", "/abs/m.jsonl"]},
            },
        }
    )
    assert sets.specs(asked, "/recipes") == [
        SetSpec("news", "unseen", ("/recipes/n.jsonl", "/abs/m.jsonl")),
        SetSpec("web", "web", (), "filtered"),  # the second arm is of another run
    ]
    asked = asked.model_copy(update={"arms": ["filtered", "unfiltered"]})
    assert sets.specs(asked, ".")[1].variant == "unfiltered"


# -- which clusters -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["", "é", "漢字"]), st.integers(1, 30)), min_size=1, max_size=30),
    st.integers(1, 200),
    st.randoms(use_true_random=False),
)
def test_whole_clusters_fill_the_room_there_is(rows, most, draw):
    documents = [document(f"d{n}", mark + "x" * size, f"c{cluster}") for n, (cluster, mark, size) in enumerate(rows)]
    sizes = Counter()
    for one in documents:
        sizes[one.cluster] += len(one.text.encode())
    chosen = sets.choose(documents, most)
    taken = {one.cluster for one in chosen}
    assert Counter(one.cluster for one in chosen) == Counter(one.cluster for one in documents if one.cluster in taken)
    total = sum(sizes[cluster] for cluster in taken)
    if min(sizes.values()) > most:
        assert len(taken) == 1
    else:
        assert 0 < total <= most
        assert all(total + size > most for cluster, size in sizes.items() if cluster not in taken)
    shuffled = draw.sample(documents, len(documents))
    assert Counter(one.doc for one in sets.choose(shuffled, most)) == Counter(one.doc for one in chosen)


def test_more_room_keeps_what_small_room_had_where_clusters_are_alike():
    documents = [document(f"d{number}", "x" * 10) for number in range(50)]
    chosen = [[one.doc for one in sets.choose(documents, most)] for most in (1, 10, 95, 100, 499, 500, 10_000)]
    assert [len(one) for one in chosen] == [1, 1, 9, 10, 49, 50, 50]
    assert all(long[: len(short)] == short for short, long in itertools.pairwise(chosen))
    assert chosen[-1] != sorted(chosen[-1])


# -- leaks --------------------------------------------------------------------------------------------------------------------


def facts_of(documents, size, clusters, removed, removed_bytes):
    return {"documents": documents, "bytes": size, "clusters": clusters, "removed": removed, "removed_bytes": removed_bytes}


def test_leaks_stand_beside_their_documents_and_facts_tell_what_is_left():
    documents = [
        document("n#0", numbered(0, 30), "t"),
        document("n#1", "é clean", "t"),
        document("n#2", "clean too", "u"),
        document("n#3", "Yes, quite so.", "v"),
        document("w#0", "quite clean", domain="web"),
        document("w#1", numbered(100, 30) + " é", domain="web"),
    ]
    corpus = iter([batch("yes quite so", numbered(7, 8)), batch("x " + numbered(101, 9))])
    leaks, facts = sets.decontaminated(documents, corpus)
    assert leaks == ["ngram", None, None, "jaccard", None, "ngram"]
    long = [len(numbered(first, 30)) for first in (0, 100)]
    assert facts == {
        "news": facts_of(2, 17, 2, {"ngram": 1, "jaccard": 1}, long[0] + 14),
        "web": facts_of(1, 11, 1, {"ngram": 1, "jaccard": 0}, long[1] + 3),
    }
    leaks, facts = sets.decontaminated(documents, [])
    none = {"ngram": 0, "jaccard": 0}
    assert leaks == [None] * 6
    assert facts == {"news": facts_of(4, long[0] + 31, 3, none, 0), "web": facts_of(2, long[1] + 14, 2, none, 0)}


def test_a_set_that_is_emptied_is_named():
    documents = [document("n#0", numbered(0, 30)), document("n#1", "yes"), document("w#0", "clean", domain="web")]
    corpus = [batch("Yes!", numbered(0, 30))]
    one_line(
        lambda: sets.decontaminated(documents, corpus), "compare.sets.news", "all 2 documents", "1 share", "1 are like", "give"
    )


# -- a run --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["unfiltered", "filtered"])
@pytest.mark.parametrize("source", ["web", "wiki"])
def test_what_a_run_holds_out_is_what_its_validation_shards_hold(small, encoder, built, variant, source):
    """Text for text and id for id; the shards were written by another path (signals -> tokenize)."""
    shards = evaluate.shard_documents(open_corpus(str(built / "tokens" / variant)), encoder)
    wanted = Counter((one.text, tuple(one.ids.tolist())) for one in shards if one.domain == source)
    found = sets.held_out(small, SetSpec(source, "unseen", variant=variant), encoder, 10**9)
    assert wanted
    assert found.duplicates == wanted.total() - len(wanted)
    assert Counter((one.text, tuple(one.ids.tolist())) for one in found.documents) == Counter(set(wanted))
    assert {one.domain for one in found.documents} == {source}
    assert all(one.cluster == f"{source}/{one.doc}" for one in found.documents)


def test_held_out_pages_of_a_host_are_a_cluster(small, encoder):
    found = sets.held_out(small, SetSpec("web", "web", variant="unfiltered"), encoder, 10**9)
    urls = {}
    for part in small.parts:
        told = read_columns(small.store, part.path("documents"), ["locator", "url"]).to_pylist()
        urls.update({row["locator"]: row["url"] for row in told if part.source == "web"})
    clusters = Counter()
    for one in found.documents:
        wanted = urls[one.doc].split("/")[2] if urls[one.doc] else f"web/{one.doc}"
        assert one.cluster == wanted
        clusters[one.cluster] += 1
    assert max(clusters.values()) > 1


def test_held_out_pages_of_hosts_that_are_trained_on_are_left_out(small, encoder, monkeypatch):
    """Against the split of every document, read row by row. The small corpus has each host on both sides, so that all stay."""
    whole = sets.held_out(small, SetSpec("web", "web", variant="unfiltered"), encoder, 10**9)
    assert whole.trained_hosts is None
    trained, held, urls = set(), Counter(), {}
    for part in small.parts:
        if part.source == "web":
            told = read_columns(small.store, part.path("documents"), ["locator", "url"]).to_pylist()
            splits = read_columns(small.store, part.decisions("unfiltered"), ["split"]).column("split").to_pylist()
            for row, split in zip(told, splits, strict=True):
                urls[row["locator"]] = row["url"]
                if row["url"]:
                    host = row["url"].split("/")[2]
                    trained |= {host} if split == "train" else set()
                    held[host] += split == "validation"
    assert sets._trained_hosts(small, "web") == trained >= set(held)
    alone = held.most_common(1)[0][0]  # as if nothing of this host were trained on
    monkeypatch.setattr(sets, "_trained_hosts", lambda run, source: trained - {alone})
    found = sets.held_out(small, SetSpec("web", "web", variant="unfiltered"), encoder, 10**9)
    wanted = [one for one in whole.documents if not urls[one.doc] or urls[one.doc].split("/")[2] == alone]
    assert sorted(one.doc for one in found.documents) == sorted(one.doc for one in wanted)
    assert 0 < len(wanted) < len(whole.documents)
    assert found.trained_hosts is None  # some have no host that could be told
    host_of = sets._host
    monkeypatch.setattr(sets, "_host", lambda url: host_of(url) or "nowhere.example")
    monkeypatch.setattr(sets, "_trained_hosts", lambda run, source: trained - {alone} | {"nowhere.example"})
    hosted = sets.held_out(small, SetSpec("web", "web", variant="unfiltered"), encoder, 10**9)
    assert {urls[one.doc].split("/")[2] for one in hosted.documents} == {alone}
    assert hosted.trained_hosts == sum(held.values()) - held[alone] + sum(not urls[one.doc] for one in whole.documents)
    some = sets.held_out(small, SetSpec("web", "unseen", variant="unfiltered"), encoder, 10**9)
    assert (len(some.documents), some.trained_hosts) == (len(whole.documents), None)


@pytest.mark.parametrize(
    ("url", "host"),
    [("https://A.Example:80/x", "a.example"), (None, None), ("", None), ("http://[half", None), ("no host", None), ("//b/c", "b")],
)
def test_hosts(url, host):
    assert sets._host(url) == host


def test_all_that_is_learned_of_a_run_is_in_its_corpus(small, encoder, built):
    """Every document of every training shard, and every sampled text of fit; and no document that is held out."""
    corpus = Counter(text for texts in sets.corpus_texts(small) for text in texts.to_pylist())
    splits = Counter()
    for part in small.parts:
        splits += Counter(read_columns(small.store, part.decisions("unfiltered"), ["split"]).column("split").to_pylist())
    assert corpus.total() == splits[TRAIN]
    assert splits[VALIDATION] > 0
    learned = 0
    for variant in ("unfiltered", "filtered"):
        opened = open_corpus(str(built / "tokens" / variant))
        for shard in opened.train:
            for one in evaluate._documents_of(shard, opened, encoder):
                assert one.text in corpus
                learned += 1
        assert not {one.text for one in evaluate.shard_documents(opened, encoder)} & corpus.keys()
    assert learned > splits[TRAIN]  # of two variants
    sampled = 0
    for part in small.parts:
        with reading_table(small.store, part.path("samples")) as file:
            texts = file.read(["text"]).column("text").to_pylist()
        assert corpus.keys() >= set(texts)
        sampled += len(texts)
    assert sampled > 0


def test_copies_of_a_runs_training_text_are_found_beside_its_held_out_documents(small, encoder, tmp_path):
    """End to end, sets of both kinds: what was planted is found, on either side of both thresholds."""
    train = [text for texts in sets.corpus_texts(small) for text in texts.to_pylist()]
    words = train[0].split()
    planted = [
        {"text": "before it " + " ".join(words[20:28]) + " behind it"},  # eight words, a short text
        {"text": "before it " + " ".join(words[20:27]) + " behind it"},  # seven
        {"text": " ".join(f"new{number}" for number in range(200)) + " " + " ".join(words[20:32])},  # twelve, a long text
        {"text": " ".join(f"new{number}" for number in range(200)) + " " + " ".join(words[20:33])},  # thirteen
        {"text": train[3].upper()},
    ]
    files = (write(tmp_path / "p.jsonl", *planted),)
    wanted = [SetSpec("planted", "unseen", files), SetSpec("wiki", "positives", variant="filtered")]
    found = sets.read(small, wanted, encoder, 10**9)
    documents = [one for some in found.values() for one in some.documents]
    leaks, facts = sets.decontaminated(documents, sets.corpus_texts(small))
    by_doc = {one.doc: leak for one, leak in zip(documents, leaks, strict=True)}
    assert [by_doc[f"p.jsonl#{number}"] for number in range(5)] == ["ngram", None, None, "ngram", "ngram"]
    assert list(facts) == ["planted", "wiki"]
    assert (facts["planted"]["documents"], facts["planted"]["removed"]) == (2, {"ngram": 3, "jaccard": 0})
    assert facts["wiki"]["documents"] == len(found["wiki"].documents)


def test_what_sets_of_a_run_cannot_be(small, encoder):
    def read(*specs):
        return lambda: sets.read(small, specs, encoder, 1000)

    nothing = SetSpec("nothing", "web", variant="filtered")
    one_line(read(nothing), "compare.sets.nothing", "holds out no document", "tokens.validation")
    one_line(read(*[SetSpec("wiki", group, variant="filtered") for group in ("web", "junk")]), "two sets", "wiki", "rename one")
