"""train.evaluate: against scoring one token at a time, against a planted bigram model, and what batches may not change."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines import bpe, bpe_file
from tests.errors import one_line
from tests.train.models import DENSE, SPARSE, moe
from tests.train.shards import write_shard, write_variant
from train import evaluate, weights
from train.corpus import open_corpus
from train.model import build

BYTES = evaluate.Encoder(bpe_file.save(bpe_file.bytes_only()), "the bytes")
KINDS = {
    "llama": dataclasses.replace(DENSE, ffn="swiglu"),
    "glam": dataclasses.replace(SPARSE, positions="relative_bias", tied_embeddings=True),
    "switch": moe(top_k=1, renormalise=False, every=1, ffn="geglu", capacity_train=1.25, jitter=0.01, expert_dropout=0.1),
    "gpt3": dataclasses.replace(DENSE, ffn="gelu", positions="learned", norm="layernorm", bias=True, tied_embeddings=True),
}
TEXTS = ["the dog saw the cat", "x", "été à Nîmes", "a <|endoftext|> b", "0123456789" * 4, "long " * 20, "the dog saw the cat"]


def lively(kind, context=32, seed=0):
    """A model of bytes whose probabilities differ enough that a wrong context shows."""
    made = build(dataclasses.replace(KINDS[kind], vocab_size=257, context=context), seed)
    with torch.no_grad():
        made.output_weight.mul_(1 if made.config.tied_embeddings else 8)
    return made


def bigram(probability_VV):
    """A model of bytes that says just these probabilities: one-hot embeddings, layers that add nothing, their logs as its head."""
    made = build(dataclasses.replace(DENSE, vocab_size=257, d_model=257), 0)
    with torch.no_grad():
        for block in made.blocks:
            for parameter in (*block.attention.parameters(), *block.ffn.parameters()):
                parameter.zero_()
        made.embedding.weight.copy_(torch.eye(257) * 1000)  # large, so that the norm's epsilon is nothing
        made.head.weight.copy_(torch.from_numpy(np.log(probability_VV).T / 257**0.5).float())
    return made


def documents(texts, domain="web"):
    return [evaluate.Document(domain, f"d#{n}", f"d#{n}", text, BYTES(text)) for n, text in enumerate(texts)]


def plainly(model, text, overlap):
    """The reference: each token by a call of its own, with the inputs of the one window that it counts in.

    A token within the first context sees all before it; windows then step by context - overlap, the last one back to the end.
    """
    ids, context = [256, *BYTES(text).tolist()], model.config.context
    targets, bits = len(ids) - 1, 0.0
    for target in range(targets):
        step = -(-max(0, target + 1 - context) // (context - overlap)) * (context - overlap)
        begin = min(step, max(0, targets - context))
        with torch.no_grad():
            logits_V = model(torch.tensor([ids[begin : target + 1]])).logits_BTV[0, -1]
        bits -= float(logits_V.double().log_softmax(0)[ids[target + 1]]) / math.log(2)
    return bits


def write_lines(path, *records):
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records))
    return str(path)


# -- scores -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overlap", [0, 5, 31])
def test_a_document_is_scored_as_token_by_token(kind, overlap):
    model = lively(kind)
    rows = evaluate.document_losses(model, BYTES, documents(TEXTS), overlap)
    assert [row.bits for row in rows] == pytest.approx([plainly(model, text, overlap) for text in TEXTS], rel=1e-5)
    assert [row.bytes for row in rows] == [19, 1, 15, 17, 40, 100, 19]


def test_half_of_the_context_is_the_overlap_by_default():
    model = lively("llama")
    wanted = evaluate.document_losses(model, BYTES, documents(TEXTS), 16)
    assert evaluate.document_losses(model, BYTES, documents(TEXTS)) == wanted
    assert evaluate.document_losses(model, BYTES, documents(TEXTS), 3)[5].bits != pytest.approx(wanted[5].bits, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_and_batches_change_nothing(kind):
    """Each document alone, in other company, in another order and at other batch sizes: the same to 1e-6."""
    model, texts = lively(kind), TEXTS * 3
    alone = {text: evaluate.document_losses(model, BYTES, documents([text]))[0].bits for text in texts}
    for at_once in (1, 40, 100, 8192):
        for order in (texts, texts[::-1]):
            got = evaluate.document_losses(model, BYTES, documents(order), tokens_at_once=at_once)
            assert [row.bits for row in got] == pytest.approx([alone[text] for text in order], rel=1e-6)


def test_a_call_repeats_to_the_bit():
    model = lively("switch")
    first, second = (evaluate.document_losses(model, BYTES, documents(TEXTS)) for _ in range(2))
    assert first == second


def test_the_models_own_losses_add_up_to_it_without_the_end_of_document():
    """The trainer's loss over [end, text, end], which is how the shards hold it: the last target is the one that is left out."""
    model, text = lively("glam"), "the dog saw the cat"
    ids = torch.tensor([[256, *BYTES(text).tolist(), 256]])
    with torch.no_grad():
        loss_BT = model(ids[:, :-1], ids[:, 1:]).loss_BT
    (row,) = evaluate.document_losses(model, BYTES, documents([text]))
    assert row.bits == pytest.approx(float(loss_BT[0, :-1].sum()) / math.log(2), rel=1e-6)
    assert float(loss_BT[0, -1]) > 0.01


def test_a_planted_bigram_model_gives_its_own_bits():
    """Probabilities known by construction: sums of their logarithms, whatever the windows."""
    draw = np.random.Generator(np.random.PCG64(1))
    probability_VV = draw.dirichlet(np.full(257, 0.5), 257) * 0.99 + 0.01 / 257
    rows = evaluate.document_losses(bigram(probability_VV), BYTES, documents(TEXTS), 7)
    for row, text in zip(rows, TEXTS, strict=True):
        ids = [256, *BYTES(text).tolist()]
        wanted = -math.fsum(math.log2(probability_VV[a, b]) for a, b in itertools.pairwise(ids))
        assert row.bits == pytest.approx(wanted, rel=1e-4)


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary():
    model = bigram(np.full((257, 257), 1 / 257))
    told = evaluate.bits_per_byte(evaluate.document_losses(model, BYTES, [*documents(TEXTS), *documents(["abc"], "books")]))
    assert list(told) == ["books", "web"]
    assert (told["books"]["documents"], told["books"]["bytes"]) == (1, 3)
    assert (told["web"]["documents"], told["web"]["bytes"]) == (7, 211)
    assert [one["bits_per_byte"] for one in told.values()] == pytest.approx([math.log2(257)] * 2, rel=1e-5)


def test_bits_per_byte_is_sum_by_sum():
    row = evaluate.DocumentLoss
    told = evaluate.bits_per_byte(
        [row("b", "1", "1", 30.0, 10), row("a", "2", "2", 1.0, 1), row("b", "3", "3", 1.0, 2), row("c", "", "", 0.0, 0)]
    )
    assert told == {
        "a": {"documents": 1, "bits": 1.0, "bytes": 1, "bits_per_byte": 1.0},
        "b": {"documents": 2, "bits": 31.0, "bytes": 12, "bits_per_byte": 31 / 12},
        "c": {"documents": 1, "bits": 0.0, "bytes": 0, "bits_per_byte": None},
    }


@given(st.integers(0, 90), st.integers(1, 20), st.data())
def test_windows_count_every_target_once(targets, context, data):
    overlap, first = data.draw(st.integers(0, context - 1)), data.draw(st.integers(0, targets))
    cuts = list(evaluate.windows(targets, first, context, overlap))
    assert [target for _, scored, stop in cuts for target in range(scored, stop)] == list(range(first, targets))
    for begin, scored, stop in cuts:
        assert 0 <= begin <= scored < stop <= targets
        assert stop - begin == min(context, stop)  # never less in sight than there is room for
        assert scored - begin >= min(overlap, scored)


def test_greedy_says_whether_every_token_was_the_likeliest():
    model = lively("llama")
    with torch.no_grad():
        best = int(model(torch.tensor([[256, 7, 9]])).logits_BTV[0, -1].argmax())
    scores = evaluate.score(model, [np.array([256, 7, 9, best]), np.array([256, 7, 9, (best + 1) % 257])], [2, 2])
    assert [(one.greedy, one.tokens) for one in scores] == [(True, 1), (False, 1)]
    probability_VV = np.full((257, 257), 0.5 / 256)
    probability_VV[:, 7] = 0.5
    planted, sevens = bigram(probability_VV), [7] * 80  # three windows, of which one or none holds another token
    scores = evaluate.score(
        planted, [np.array([256, *sevens]), np.array([256, *sevens, 8]), np.array([256, 8, *sevens])], [0, 0, 0]
    )
    assert [(one.greedy, one.tokens) for one in scores] == [(True, 80), (False, 81), (False, 81)]


# -- evaluation sets ----------------------------------------------------------------------------------------------------------


def test_documents_are_read_with_their_clusters(tmp_path):
    path = write_lines(
        tmp_path / "news.jsonl", {"text": "one"}, "", {"text": "deux é", "cluster": "host"}, {"text": "3", "cluster": 8}
    )
    got = evaluate.read_documents(path, BYTES)
    assert [(one.domain, one.doc, one.cluster, one.text) for one in got] == [
        ("news", "news.jsonl#0", "news.jsonl#0", "one"),
        ("news", "news.jsonl#2", "host", "deux é"),
        ("news", "news.jsonl#3", "8", "3"),
    ]
    assert [BYTES.tokenizer.tokens[one] for one in got[1].ids] == [bytes([one]) for one in "deux é".encode()]
    assert evaluate.read_documents(path, BYTES, "held out")[0].domain == "held out"


def test_validation_shards_are_scored_by_source_as_they_stand(tmp_path):
    """Against the same documents read from the shards' ids: 10 of each source, none of the training split."""
    folder = write_variant(tmp_path / "run")
    corpus = open_corpus(str(folder))
    encoder = evaluate.Encoder((tmp_path / "run/models/tokenizer.json").read_bytes(), "the run's")
    got = evaluate.shard_documents(corpus, encoder)
    assert [(one.domain, one.doc) for one in got] == [
        (source, f"validation/{source}-00000-of-00001#{n}") for source in ("web", "wiki") for n in range(10)
    ]
    file = corpus.validation[1].file
    assert got[13].ids.tolist() == file.ids[file.starts[3] : file.starts[4] - 1].tolist()
    assert got[13].text.encode() == bpe.decode(encoder.tokenizer, got[13].ids)
    rows = evaluate.document_losses(lively("glam"), encoder, got)
    assert sum(row.bytes for row in rows) == sum(len(shard.file) for shard in corpus.validation) - 20
    assert rows[13].bits == pytest.approx(plainly(lively("glam"), got[13].text, 16), rel=1e-5)


def test_a_checkpoint_scores_as_the_model_that_was_saved(tmp_path):
    model, folder = lively("switch"), str(tmp_path / "made")
    weights.write_checkpoint(folder, model.config, model.state_dict(), bpe_file.save(BYTES.tokenizer))
    loaded, encoder = evaluate.load(folder)
    got, wanted = (evaluate.document_losses(*pair, documents(TEXTS)) for pair in ((loaded, encoder), (model, BYTES)))
    assert got == wanted


# -- bad input ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "parts"),
    [
        ({"body": "x"}, ["line 2", "no text"]),
        ({"text": ""}, ["line 2", "no text"]),
        ({"text": 5}, ["line 2", "no text"]),
        ({"text": "x", "cluster": [1]}, ["line 2", "cluster is [1]"]),
        ('{"text": "\\ud800"}', ["line 2", "surrogate"]),
        ("[1]", ["line 2", "list"]),
        ("{", ["line 2", "not JSON"]),
    ],
)
def test_bad_records_are_one_line(tmp_path, record, parts):
    path = write_lines(tmp_path / "set.jsonl", {"text": "fine"}, record)
    one_line(lambda: evaluate.read_documents(path, BYTES), path, *parts)


def test_bad_sets_are_one_line(tmp_path):
    empty = write_lines(tmp_path / "empty.jsonl")
    one_line(lambda: evaluate.read_documents(empty, BYTES), empty, "no documents")
    one_line(lambda: evaluate.read_documents(str(tmp_path / "none.jsonl"), BYTES), "none.jsonl", "cannot be read")
    one_line(lambda: evaluate.document_losses(lively("llama"), BYTES, []), "no documents")
    one_line(lambda: evaluate.document_losses(lively("llama"), BYTES, documents(["x"]), 32), "overlap 32", "0 to 31")


def test_another_vocabulary_is_one_line(tmp_path):
    """A model of 61 ids; and shards of a tokenizer of the same run's size, but not the same."""
    one_line(lambda: evaluate.document_losses(build(DENSE, 0), BYTES, documents(["x"])), "the bytes", "257 ids", "has 61")
    corpus = open_corpus(str(write_variant(tmp_path / "run")))
    trained = evaluate.Encoder(bpe_file.save(bpe.train(iter(["abab"] * 9), 258, "runs")), "another")
    one_line(lambda: evaluate.shard_documents(corpus, trained), "another tokenizer", "257 ids", "258 ids")
    digits = dataclasses.replace(bpe_file.bytes_only(), digits="runs" if BYTES.tokenizer.digits == "split" else "split")
    one_line(
        lambda: evaluate.shard_documents(corpus, evaluate.Encoder(bpe_file.save(digits), "digits")), "digits", "another tokenizer"
    )


def test_a_corpus_without_validation_is_one_line(tmp_path):
    write_shard(tmp_path / "only", [[1, 2, 3]], 256)
    corpus = open_corpus(str(tmp_path / "only"), vocab_size=257)
    one_line(lambda: evaluate.shard_documents(corpus, BYTES), "no validation documents")


def test_a_diverged_model_is_one_line():
    model = lively("llama")
    with torch.no_grad():
        model.output_weight[3] = float("nan")
    one_line(lambda: evaluate.document_losses(model, BYTES, documents(["x"])), "not finite", "earlier checkpoint")
