"""train.index, blend, corpus, data: megatron-core's and winnow's own reader, brute-force packing and blending, bad input."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import struct
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.shards import open_shard
from tests.train.shards import text_like, write_megatron, write_shard, write_variant
from train import losses
from train.blend import Blend, deal, pass_key, permute
from train.corpus import Shard, Vocabulary, open_corpus
from train.data import IGNORE, TrainingData, n_sequences, pack, validation_sequences
from train.index import TokenFile, open_tokens

END = 256
SIZES = st.lists(st.integers(1, 30), max_size=12)


def megatron_reader():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it would like to have on a GPU
        module = pytest.importorskip("megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed")
    return module.IndexedDataset


def memory(documents: list[list[int]]) -> TokenFile:
    ids = np.array([one for document in documents for one in document], np.uint16)
    return TokenFile("memory", ids, np.cumsum([0, *map(len, documents)]))


def shard(documents: list[list[int]], name: str = "s", weight: float = 1.0) -> Shard:
    return Shard(name, name, memory(documents), weight)


# -- reading ----------------------------------------------------------------------------------------------------------------


def test_our_shards_read_as_winnows_and_megatrons_own_readers_read_them(tmp_path):
    documents = text_like(40, 1)
    write_shard(tmp_path / "s", documents, END)
    ours, winnows = open_tokens(str(tmp_path / "s")), open_shard(str(tmp_path / "s"))
    assert ours.ids.tolist() == winnows.ids.tolist()
    assert ours.starts.tolist() == winnows.starts.tolist()
    theirs = megatron_reader()(str(tmp_path / "s"))
    for number in range(len(theirs)):
        assert ours.ids[ours.starts[number] : ours.starts[number + 1]].tolist() == theirs[number].tolist()


@pytest.mark.parametrize(("dtype", "code"), [("<u1", 1), ("<i1", 2), ("<i2", 3), ("<i4", 4), ("<i8", 5), ("<u2", 8)])
def test_any_integer_type_and_documents_of_several_sequences(tmp_path, dtype, code):
    """megatron-core reads the same sequences and borders."""
    sequences, borders = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10], [11]], [0, 2, 3, 5]
    write_megatron(tmp_path / "m", sequences, borders, dtype, code)
    ours = open_tokens(str(tmp_path / "m"))
    assert ours.ids.dtype == np.dtype(dtype)
    assert ours.ids.tolist() == list(range(1, 12))
    assert ours.starts.tolist() == [0, 4, 6, 11]
    assert [ours.document_at(token) for token in (0, 3, 4, 6, 10)] == [0, 0, 1, 2, 2]
    theirs = megatron_reader()(str(tmp_path / "m"))
    assert [theirs[number].tolist() for number in range(5)] == sequences
    assert theirs.document_indices.tolist() == borders


def test_an_empty_shard_can_be_opened(tmp_path):
    write_shard(tmp_path / "e", [], END)
    assert len(open_tokens(str(tmp_path / "e"))) == 0


def damage(path: Path, at: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


FAULTS = {
    "no index": (lambda p: Path(f"{p}.idx").unlink(), "a shard is a pair of files"),
    "no bin": (lambda p: Path(f"{p}.bin").unlink(), "a shard is a pair of files"),
    "other magic": (lambda p: damage(Path(f"{p}.idx"), 0, b"PK"), "does not begin with MMIDIDX"),
    "cut header": (lambda p: cut(Path(f"{p}.idx"), 20), "does not begin with MMIDIDX"),
    "other version": (lambda p: damage(Path(f"{p}.idx"), 9, b"\x02"), "version 2"),
    "floats": (lambda p: damage(Path(f"{p}.idx"), 17, b"\x07"), "no token ids"),
    "unknown type": (lambda p: damage(Path(f"{p}.idx"), 17, b"\x63"), "dtype code 99"),
    "no borders": (lambda p: damage(Path(f"{p}.idx"), 26, struct.pack("<Q", 0)), "no document borders"),
    "cut index": (lambda p: cut(Path(f"{p}.idx"), 80), "cut short or damaged"),
    "counts beyond the file": (lambda p: damage(Path(f"{p}.idx"), 18, struct.pack("<Q", 1 << 60)), "do not hold"),
    "a length that lies": (lambda p: damage(Path(f"{p}.idx"), 34 + 4, struct.pack("<i", 77)), "sequence 2 disagree"),
    "a negative length": (lambda p: damage(Path(f"{p}.idx"), 34, struct.pack("<i", -1)), "sequence 0 disagree"),
    "an offset that lies": (lambda p: damage(Path(f"{p}.idx"), 34 + 12 + 8, struct.pack("<q", 999)), "sequence 1 disagree"),
    "borders that fall": (lambda p: damage(Path(f"{p}.idx"), 34 + 36 + 8, struct.pack("<q", 9)), "do not rise"),
    "borders that begin late": (lambda p: damage(Path(f"{p}.idx"), 34 + 36, struct.pack("<q", 1)), "do not rise"),
    "half a token": (lambda p: cut(Path(f"{p}.bin"), 7), "no whole number of uint16 tokens"),
    "cut tokens": (lambda p: cut(Path(f"{p}.bin"), 8), "4 tokens, but"),
    "more tokens": (lambda p: Path(f"{p}.bin").write_bytes(b"ab" * 99), "longer than that"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_pair_is_one_line_that_names_the_file(tmp_path, fault):
    prefix = tmp_path / "s"
    write_shard(prefix, [[1, 2], [3], [4, 5, 6]], END)
    break_it, says = FAULTS[fault]
    break_it(prefix)
    with pytest.raises(UserError) as caught:
        open_tokens(str(prefix))
    line = str(caught.value)
    assert line.startswith(str(prefix) + ".")
    assert says in line
    assert "\n" not in line


def test_images_are_refused(tmp_path):
    write_shard(tmp_path / "s", [[1], [2]], END)
    idx = tmp_path / "s.idx"
    idx.write_bytes(idx.read_bytes() + b"\0\0")
    with pytest.raises(UserError, match="multimodal"):
        open_tokens(str(tmp_path / "s"))


# -- packing ----------------------------------------------------------------------------------------------------------------


def brute_force(documents: list[list[int]], context: int, masked: bool) -> list[list[tuple[int, int, bool]]]:
    """Sequences of (input, target, whether a document begins), target None where there is none, made one token at a time."""
    flat = [(token, place == 0) for document in documents for place, token in enumerate(document)]
    rows: list[list[tuple[int, int, bool]]] = []
    for (token, begins), (target, target_begins) in itertools.pairwise(flat):
        if not rows or len(rows[-1]) == context:
            rows.append([])
        rows[-1].append((token, IGNORE if masked and target_begins else target, begins and masked))
    return rows


@given(sizes=SIZES, context=st.integers(1, 40), masked=st.booleans())
def test_packing_is_brute_force_packing(sizes, context, masked):
    """Reference: one pass in plain Python. Every token but the first is a target once; the tail is padded."""
    documents = [list(range(10 * number, 10 * number + size)) for number, size in enumerate(sizes)]
    made = shard(documents)
    wanted = brute_force(documents, context, masked)
    assert n_sequences(len(made.file), context) == len(wanted)
    if not wanted:
        return
    batch = pack([(made, number) for number in range(len(wanted))], context, masked, Vocabulary(1000))
    for row, expected in enumerate(wanted):
        size = len(expected)
        starts = np.zeros(context, bool) if batch.starts_BT is None else batch.starts_BT[row]
        got = list(zip(batch.tokens_BT[row].tolist(), batch.targets_BT[row].tolist(), starts.tolist(), strict=True))
        assert got[:size] == expected
        assert got[size:] == [(0, IGNORE, False)] * (context - size)
        valid = np.ones(context, bool) if batch.valid_BT is None else batch.valid_BT[row]
        assert valid.tolist() == [True] * size + [False] * (context - size)
    assert (batch.valid_BT is None) == (sum(sizes) - 1 == len(wanted) * context)
    assert (batch.starts_BT is None) == (not masked)
    assert batch.n_targets == sum(target != IGNORE for row in wanted for _, target, _ in row)


def test_a_row_of_nothing_is_padding():
    batch = pack([(shard([[1, 2, 3, 4, 5]]), 0), None], 4, True, Vocabulary(10))
    assert batch.valid_BT.tolist() == [[True] * 4, [False] * 4]
    assert batch.n_targets == 4
    assert IGNORE == losses.IGNORE


# -- order ------------------------------------------------------------------------------------------------------------------


@given(size=st.integers(1, 300), key=st.integers(0, (1 << 64) - 1))
def test_a_permutation_is_one(size, key):
    assert sorted(permute(index, size, key) for index in range(size)) == list(range(size))


def test_permutations_mix_and_differ():
    """Each of 16 indices lands on each of 16 places about equally often over 3200 keys: 200 +- 5 standard deviations (70)."""
    table = np.zeros((16, 16), int)
    for seed in range(3200):
        key = pass_key(seed, "web", 0)
        for index in range(16):
            table[index, permute(index, 16, key)] += 1
    assert np.abs(table - 200).max() < 70
    neighbours = [permute(index + 1, 4096, 7) - permute(index, 4096, 7) for index in range(4095)]
    assert max(Counter(neighbours).values()) < 12


@given(shares=st.lists(st.integers(1, 50), min_size=1, max_size=9), places=st.integers(1, 300))
def test_the_blend_is_exact_at_all_times(shares, places):
    """Brute force: dealing place by place. Every part counts 0, 1, 2, ..; each has its share to within one a halving."""
    received = [0] * len(shares)
    halvings = (len(shares) - 1).bit_length()
    for place in range(places):
        part, own = deal(shares, place)
        assert own == received[part]
        received[part] += 1
        for number, share in enumerate(shares):
            assert abs(received[number] - (place + 1) * share / sum(shares)) <= halvings + 1e-9
    blend = Blend(0, tuple(map(str, shares)), (1,) * len(shares), tuple(shares))
    assert blend.counts(places) == received


def test_every_pass_gives_every_sequence_once_in_another_order():
    blend = Blend.of(3, ["a", "b"], [11, 4], [0.5, 0.5])
    seen: dict[tuple[int, int], list[int]] = {}
    for place in range(2 * 33):
        one = blend.at(place)
        seen.setdefault((one.part, one.epoch), []).append(one.sequence)
    assert all(sorted(seen[0, epoch]) == list(range(11)) for epoch in range(3))
    assert all(sorted(seen[1, epoch]) == list(range(4)) for epoch in range(8))
    assert len({tuple(order) for (part, _), order in seen.items() if part == 0}) == 3


def test_a_parts_order_does_not_depend_on_the_other_parts_but_on_the_seed():
    def order(names, shares, seed):
        blend = Blend.of(seed, names, [50] * len(names), shares)
        found = [blend.at(place) for place in range(200)]
        return [one.sequence for one in found if names[one.part] == "a"][:50]

    assert order(["a", "b"], [1, 1], 0) == order(["b", "c", "a"], [2, 1, 1], 0)
    assert order(["a", "b"], [1, 1], 0) != order(["a", "b"], [1, 1], 1)


@pytest.mark.parametrize("bad", [{"shares": [0.0]}, {"sequences": [0]}, {"names": []}])
def test_a_blend_of_nothing_is_refused(bad):
    given_ = {"names": ["a"], "sequences": [1], "shares": [1.0], **bad}
    with pytest.raises(ValueError, match="a blend needs parts"):
        Blend.of(0, **given_)


def test_a_global_batch_is_the_same_however_it_is_split(tmp_path):
    """1, 2 and 4 processes and micro-batches of 1 to 8: the rows of the global batch, in order."""
    data = TrainingData.of(open_corpus(str(write_variant(tmp_path))), seed=5, context=24, masked=True)
    for step in (0, 3, 40):
        whole = data.batch(range(8 * step, 8 * step + 8))
        for size in (1, 2, 4):
            parts = [data.batch(range(8 * step + first, 8 * step + first + size)) for first in range(0, 8, size)]
            for name in ("tokens_BT", "targets_BT", "starts_BT"):
                joined = np.concatenate([getattr(part, name) for part in parts])
                assert np.array_equal(joined, getattr(whole, name))
            assert sum(part.n_targets for part in parts) == whole.n_targets


def test_one_pass_trains_on_every_token_but_the_shards_first(tmp_path):
    corpus = open_corpus(str(write_variant(tmp_path)))
    data = TrainingData.of(corpus, seed=0, context=24)
    shards, n = corpus.train, data.blend.sequences
    even = TrainingData(corpus, 24, False, Blend.of(0, data.blend.names, n, n))  # shares by sequences: all end together
    batch = even.batch(range(sum(n)))
    wanted = Counter(int(token) for shard in shards for token in shard.file.ids[1:])
    assert Counter(batch.targets_BT[batch.targets_BT != IGNORE].tolist()) == wanted


def test_passes_beyond_what_the_blend_allows_are_refused(tmp_path):
    folder = write_variant(tmp_path)
    blend = json.loads((folder / "blend.json").read_text())
    for entry in blend["train"]:
        entry["epochs"] = 2.0
    (folder / "blend.json").write_text(json.dumps(blend))
    data = TrainingData.of(open_corpus(str(folder)), seed=0, context=24)
    total = sum(data.blend.sequences)
    data.check_passes(total)
    with pytest.raises(UserError, match=r"train/\S+: \d+ sequences go through it 3\.\d\d times, 2 allowed; .*data.epochs=4"):
        data.check_passes(3 * total + 40)
    data.check_passes(3 * total + 40, allowed=5)


def test_validation_sequences_are_spread_and_by_source(tmp_path):
    corpus = open_corpus(str(write_variant(tmp_path)))
    every = validation_sequences(corpus, 24, 10**9)
    assert list(every) == ["web", "wiki"]
    for source, sequences in every.items():
        (only,) = [shard for shard in corpus.validation if shard.source == source]
        assert sequences == [(only, number) for number in range(n_sequences(len(only.file), 24))]
    some = validation_sequences(corpus, 24, 3)
    count = len(every["web"])
    assert [number for _, number in some["web"]] == [0, count // 3, 2 * count // 3]


# -- corpora ----------------------------------------------------------------------------------------------------------------


def test_a_variant_is_opened_with_its_tokenizer(tmp_path):
    corpus = open_corpus(str(write_variant(tmp_path)))
    assert [(one.name, one.source) for one in corpus.train][1:] == [
        ("train/web-00001-of-00002", "web"), ("train/wiki-00000-of-00001", "wiki")
    ]  # fmt: skip
    assert (corpus.vocabulary.size, corpus.vocabulary.end_of_document) == (257, 256)
    assert open_corpus(str(tmp_path / "tokens/filtered/blend.json")).digest == corpus.digest
    assert open_corpus(str(tmp_path / "tokens/filtered/train/web-00000-of-00002")).vocabulary == corpus.vocabulary


def test_a_pair_of_another_tool_is_a_corpus(tmp_path):
    write_megatron(tmp_path / "text_document", [[1, 2, 3], [4, 5]], [0, 1, 2], "<i4", 4)
    corpus = open_corpus(str(tmp_path / "text_document"), vocab_size=6)
    assert corpus.train[0].source == "text_document"
    assert corpus.validation == ()
    with pytest.raises(UserError, match=r"no tokenizer lies beside the shards; give data\.tokenizer, or data\.vocab_size"):
        open_corpus(str(tmp_path / "text_document"))


def edited(folder: Path, change) -> None:
    blend = json.loads((folder / "blend.json").read_text())
    change(blend)
    (folder / "blend.json").write_text(json.dumps(blend))


def foreign_tokenizer(folder: Path) -> None:
    write_shard(folder / "train/wiki-00000-of-00001", [[1, 2, 3], [4]], 17)
    edited(folder, lambda blend: blend["train"][2].pop("tokens"))


BAD = {
    "no folder": (lambda folder: shutil.rmtree(folder), "no such data"),
    "no blend": (lambda folder: (folder / "blend.json").unlink(), "blend.json: cannot be read"),
    "no JSON": (lambda folder: (folder / "blend.json").write_text("{"), "not JSON"),
    "a list": (lambda folder: (folder / "blend.json").write_text("[]"), "a blend is an object"),
    "an empty variant": (lambda folder: edited(folder, lambda blend: blend["train"].clear()), "the variant is empty"),
    "no weight": (lambda folder: edited(folder, lambda b: [e.update(weight=0) for e in b["train"]]), "the variant is empty"),
    "no prefix": (lambda folder: edited(folder, lambda blend: blend["train"][0].pop("prefix")), "has no prefix"),
    "a bad weight": (lambda folder: edited(folder, lambda blend: blend["train"][0].update(weight="1")), "weight '1'"),
    "no end of weight": (lambda folder: edited(folder, lambda blend: blend["train"][0].update(weight=math.inf)), "weight inf"),
    "a weight below 0": (lambda folder: edited(folder, lambda blend: blend["train"][0].update(weight=-1)), "weight -1"),
    "a shard twice": (lambda folder: edited(folder, lambda b: b["train"].append(dict(b["train"][0]))), "stands twice"),
    "other tokens": (lambda folder: edited(folder, lambda blend: blend["train"][0].update(tokens=5)), "the blend says 5"),
    "another tokenizer": (foreign_tokenizer, "document 0 ends with id 17, not with the end-of-document id 256 of"),
    "no tokenizer": (lambda folder: (folder / "../../models/tokenizer.json").resolve().unlink(), "give data.tokenizer"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_corpora_are_one_line(tmp_path, fault):
    folder = write_variant(tmp_path)
    break_it, says = BAD[fault]
    break_it(folder)
    with pytest.raises(UserError) as caught:
        open_corpus(str(folder))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_remote_data_and_a_contradicting_vocabulary_are_refused(tmp_path):
    with pytest.raises(UserError, match="memory-mapped"):
        open_corpus("gs://bucket/tokens/filtered")
    with pytest.raises(UserError, match=r"data\.vocab_size 99: .* has 257 ids"):
        open_corpus(str(write_variant(tmp_path)), vocab_size=99)


def test_an_id_outside_the_vocabulary_names_its_document(tmp_path):
    write_megatron(tmp_path / "m", [[1, 2], [3, 99, 4]], [0, 1, 2], "<i4", 4)
    data = TrainingData.of(open_corpus(str(tmp_path / "m"), vocab_size=50), 0, 8)
    with pytest.raises(UserError, match=r"m\.bin: id 99 in document 1 is outside the vocabulary of 50"):
        data.batch([0])
