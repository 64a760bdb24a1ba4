"""pipelines.bpe: ids and file against Hugging Face `tokenizers`, ids against `tiktoken` with the same merges."""

import gzip
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import tiktoken
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from pipelines import bpe, unicode_classes
from pipelines.bpe_file import PATTERNS
from pipelines.errors import UserError

_WORDS = {
    "latin": [
        "the",
        "of",
        "and",
        "to",
        "in",
        "Ärger",
        "übung",
        "naïve",
        "façade",
        "don't",
        "it's",
        "we've",
        "they'll",
        "I'd",
        "I'm",
        "you're",
        "'s",
        "'ll",
        "x's",
        "'s's",
    ],
    "other": [
        "Привет",
        "мир",
        "你好",
        "世界",
        "こんにちは",
        "สวัสดี",
        "नमस्ते",
        "مرحبا",
        "שלום",
        "한국어",
        "ǅ",
        "ª",
        "ⅷ",
        "²",
        "½",
        "١٢٣",
        "४५",
        "12",
        "345",
        "2024",
        "3.14",
        "a1b2",
    ],
    "signs": [
        "...",
        "--",
        "==>",
        "/*",
        "*/",
        "#!",
        "😀",
        "👩‍👩‍👧",
        "\u200d",
        "'",
        "''",
        "<|endoftext|>",
        "€5",
        "\x00",
        "\x7f",
    ],
    "blank": [
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "\r\n",
        "\u00a0",
        "\u3000",
        "\u2028",
        "\x85",
        "    ",
        " \u00a0 ",
        "\x1c",
        "",
    ],
}


def _texts(count: int, seed: int) -> list[str]:
    """Multilingual texts of words, numbers, signs and every kind of white space, from a seed."""
    draw = random.Random(seed)
    pools = list(_WORDS.values())
    texts = []
    for _ in range(count):
        pieces = []
        for _ in range(draw.randrange(60)):
            pieces.append(draw.choice(draw.choice(pools)))
            pieces.append(" " if draw.random() < 0.7 else draw.choice(_WORDS["blank"]))
        texts.append("".join(pieces))
    return texts


EDGES = [
    "",
    "a",
    " ",
    "\x00",
    "\x00" * 40,
    "é",
    "\U0010ffff",
    "\u00a0",
    " \u00a0",
    "\u00a0x",
    "\u3000\u3000x",
    "  x",
    "x  ",
    "x\n\n y",
    "'",
    "'s",
    "''s",
    " 's",
    "'sabc",
    "'llama",
    "'S",
    "'ſ",
    "x'",
    "x'r",
    "x'rex",
    "<|endoftext|>",
    "a<|endoftext|>b",
    "1 22  333\u00a04444 ٣٤ Ⅷ",
    "letter" * 900,
    "ab" * 60_000,
    " " * 5_000 + "x",
    "\n" * 300,
    "é" * 3_000,
    "中" * 2_000,
    "😀" * 2_000,
]
# Every way for a character, a contraction, a run of white space or a number to lie across the 64-byte blocks of the masks.
CROSSINGS = [
    "x" * before + middle + "y" * after
    for middle in (
        "é",
        "中",
        "😀",
        "'s",
        "'ll",
        "'re ",
        " 'd",
        "\u00a0",
        " \u00a0",
        "\u3000\u3000",
        "  ",
        " \n ",
        "12",
        "٣٤",
        "!'s",
    )
    for before in range(58, 68)
    for after in (0, 1, 70)
]


@pytest.fixture(scope="module")
def trained():
    """One small tokenizer for each treatment of digits."""
    return {digits: bpe.train(iter(_texts(3_000, 1)), 1_500, digits) for digits in PATTERNS}


@pytest.fixture(scope="module", params=sorted(PATTERNS))
def tokenizer(request, trained):
    return trained[request.param]


def _large(texts) -> pa.Array:
    return pa.array(texts, pa.large_string())


def _ids(result) -> list[list[int]]:
    ids, offsets = result
    assert ids.dtype == np.uint32
    assert offsets.dtype == np.int64
    assert offsets[0] == 0
    return [ids[begin:end].tolist() for begin, end in pairwise(offsets)]


def _hugging_face(tokenizer: bpe.Tokenizer, texts: list[str]) -> list[list[int]]:
    """By `tokenizers` from the saved file, special tokens in texts read as characters."""
    reader = tokenizers.Tokenizer.from_str(bpe.save(tokenizer).decode())
    reader.encode_special_tokens = True
    return [encoding.ids for encoding in reader.encode_batch(texts, add_special_tokens=False)]


def _tiktoken(tokenizer: bpe.Tokenizer, texts: list[str]) -> list[list[int]]:
    """By `tiktoken` with the tokens' ids as ranks, which they are in a trained tokenizer."""
    ranks = {token: i for i, token in enumerate(tokenizer.tokens) if i != tokenizer.end_of_document}
    special = {"<|endoftext|>": tokenizer.end_of_document}
    encoding = tiktoken.Encoding("x", pat_str=tokenizer.pattern, mergeable_ranks=ranks, special_tokens=special)
    return encoding.encode_ordinary_batch(texts)


# -- classes ---------------------------------------------------------------------------------------------------------


def test_classes_are_tiktokens_over_all_code_points():
    classes = unicode_classes.character_classes()
    for value, pattern in ((1, r"\p{L}"), (2, r"\p{N}"), (3, r"\s")):
        expected = np.zeros(0x110000, bool)
        for entry in unicode_classes.probe(pattern).split():
            first, _, last = entry.partition("-")
            expected[int(first, 16) : int(last or first, 16) + 1] = True
        assert np.array_equal(classes == value, expected)
    assert np.bincount(classes)[1:].tolist() == [141_028, 1_911, 25]


def test_classes_are_hugging_faces_over_all_code_points():
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF)
    classes = unicode_classes.character_classes()
    for value, pattern in ((1, r"\p{L}"), (2, r"\p{N}"), (3, r"\s")):
        remove = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "removed")
        kept = set()
        for start in range(0, len(every), 1 << 16):
            for piece, _ in remove.pre_tokenize_str(every[start : start + (1 << 16)]):
                kept.update(map(ord, piece))
        assert kept == {ord(c) for c in every if classes[ord(c)] != value}


# -- equality --------------------------------------------------------------------------------------------------------


def test_edges_equal_both_libraries(tokenizer):
    texts = EDGES + CROSSINGS
    got = _ids(bpe.Encoder(tokenizer)(_large(texts)))
    assert got == _hugging_face(tokenizer, texts)
    assert got == _tiktoken(tokenizer, texts)


def test_generated_texts_equal_both_libraries(tokenizer):
    texts = _texts(2_000, 2)
    encoder = bpe.Encoder(tokenizer)
    got = [ids for start in range(0, 2_000, 300) for ids in _ids(encoder(_large(texts[start : start + 300])))]
    assert got == _hugging_face(tokenizer, texts)
    assert got == _tiktoken(tokenizer, texts)
    assert sum(map(len, got)) > 50_000


_ODD = "abst'l \n\t\u00a0\u3000\x85éß中文ไทย٣12.½!😀\u0301\x00<|>"


@given(
    st.lists(
        st.text(st.sampled_from(_ODD), max_size=200) | st.text(st.characters(exclude_categories=["Cs"])), max_size=5
    )
)
def test_arbitrary_texts_equal_hugging_face_and_decode_back(trained, texts):
    for tokenizer in trained.values():
        ids, offsets = bpe.Encoder(tokenizer, cache_slots=64, cache_stored=256)(_large(texts))
        assert _ids((ids, offsets)) == _hugging_face(tokenizer, texts)
        for text, (begin, end) in zip(texts, pairwise(offsets), strict=True):
            assert bpe.decode(tokenizer, ids[begin:end]) == text.encode()


@pytest.mark.parametrize("name", ["docs", "multi"])
def test_real_texts_equal_both_libraries(real_data, name):
    """A tokenizer trained on every third text; the first 400 documents of ten languages and of the copies' corpus."""
    with gzip.open(real_data / "bench" / f"{name}.jsonl.gz") as lines:
        texts = [json.loads(line)["text"] for _, line in zip(range(400), lines, strict=False)]
    for digits in PATTERNS:
        tokenizer = bpe.train(iter(texts[::3]), 4_000, digits)
        got = _ids(bpe.Encoder(tokenizer)(_large(texts)))
        assert got == _tiktoken(tokenizer, texts)
        assert got == _hugging_face(tokenizer, texts)


def test_split_digits_stand_alone_and_take_no_space(trained):
    text = _large(["in 2024 or 3.14"])
    pieces = {}
    for digits, tokenizer in trained.items():
        ids, _ = bpe.Encoder(tokenizer)(text)
        pieces[digits] = [bpe.decode(tokenizer, ids[i : i + 1]) for i in range(len(ids))]
    assert pieces["split"].count(b"2") == 2
    assert not any(len(token) > 1 and any(byte in b"0123456789" for byte in token) for token in trained["split"].tokens)
    assert {b"12", b"345"} <= set(trained["runs"].tokens)


# -- batches, cache, threads -----------------------------------------------------------------------------------------


def test_slices_and_chunks_and_string_type(tokenizer):
    texts = EDGES + _texts(50, 3)
    encoder = bpe.Encoder(tokenizer)
    whole = _ids(encoder(_large(texts)))
    assert _ids(encoder(_large(texts)[7:31])) == whole[7:31]
    assert _ids(encoder(pa.array(texts, pa.string()))) == whole
    assert _ids(encoder(pa.chunked_array([_large(texts[:5]), _large(texts[5:])]))) == whole
    assert [ids for text in texts for ids in _ids(encoder(_large([text])))] == whole


@pytest.mark.parametrize("texts", [[], [""], ["", "", ""]])
def test_nothing_gives_no_ids(tokenizer, texts):
    assert _ids(bpe.Encoder(tokenizer)(_large(texts))) == [[] for _ in texts]


def test_no_result_depends_on_the_cache(tokenizer):
    """One set of slots, stores of one long key: constant eviction and restarts; an ample cache, cold and warm."""
    texts = EDGES + CROSSINGS + _texts(300, 4) + [f"longerthansixteenletters{i} " * 2 for i in range(99)]
    ample = bpe.Encoder(tokenizer)
    cold = _ids(ample(_large(texts)))
    assert _ids(ample(_large(texts[::-1])))[::-1] == cold
    assert _ids(bpe.Encoder(tokenizer, cache_slots=4, cache_stored=256)(_large(texts))) == cold
    assert _ids(bpe.Encoder(tokenizer, cache_slots=16, cache_stored=300)(_large(texts))) == cold


def test_a_piece_met_again_is_answered_from_the_cache(trained):
    """With the slots' values overwritten the answer changes: so the tests above do test hits."""
    encoder = bpe.Encoder(trained["runs"])
    text = _large(["the", "longerthansixteenletters"])
    before = _ids(encoder(text))
    encoder._cache.slots[:, 3] += np.uint64(encoder._cache.slots[:, 2] > 0)
    assert _ids(encoder(text)) != before


def test_eight_threads_at_once_give_the_same_ids(tokenizer):
    """Each with its own encoder, and all with one: it takes turns."""
    batches = [_large(_texts(120, seed)) for seed in range(16)]
    expected = [_ids(bpe.Encoder(tokenizer)(batch)) for batch in batches]
    shared = bpe.Encoder(tokenizer, cache_slots=64, cache_stored=512)
    with ThreadPoolExecutor(8) as pool:
        own = list(pool.map(lambda batch: _ids(bpe.Encoder(tokenizer, cache_slots=256)(batch)), batches))
        turns = list(pool.map(lambda batch: _ids(shared(batch)), batches))
    assert own == expected
    assert turns == expected


def test_long_pieces_take_no_quadratic_time(trained):
    """A million equal words, letters without a space, white space: decoded back, and equal on a part of each."""
    shapes = ["word ", "abcde", "a", " \n"]
    encoder = bpe.Encoder(trained["runs"])
    for shape in shapes:
        ids, _ = encoder(_large([shape * 1_000_000]))
        assert bpe.decode(trained["runs"], ids) == shape.encode() * 1_000_000
    part = [shape * 20_000 for shape in shapes]
    assert _ids(encoder(_large(part))) == _hugging_face(trained["runs"], part)


def test_bounds_are_kept(tmp_path):
    """The same edges in a process with numba's bounds checks on give the same ids."""
    program = (
        "import sys, json, pyarrow as pa\n"
        "from pipelines import bpe; from tests.pipelines import test_bpe as t\n"
        "tokenizer = bpe.load(sys.stdin.buffer.read(), 'given')\n"
        "texts = pa.array(t.EDGES[:-6] + t.CROSSINGS + t._texts(30, 5), pa.large_string())\n"
        "out = [bpe.Encoder(tokenizer, cache_slots=n, cache_stored=256)(texts)[0].tolist() for n in (4, 1024)]\n"
        "print(json.dumps(out))"
    )
    tokenizer = bpe.train(iter(_texts(200, 6)), 600, "split")
    texts = _large(EDGES[:-6] + CROSSINGS + _texts(30, 5))
    # A cache folder of its own: the cached kernels were compiled without checks.
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": "."}
    done = subprocess.run(
        [sys.executable, "-c", program], input=bpe.save(tokenizer), capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    expected = bpe.Encoder(tokenizer)(texts)[0].tolist()
    assert json.loads(done.stdout) == [expected, expected]


# -- training --------------------------------------------------------------------------------------------------------


def test_training_depends_on_neither_order_nor_threads():
    """Three orders in this process; then one and four threads of the trainer, another hash seed, in processes."""
    texts = _texts(1_500, 7)
    files = set()
    for seed in range(3):
        shuffled = random.Random(seed).sample(texts, len(texts))
        files.add(bpe.save(bpe.train(iter(shuffled), 1_200, "split")))
    program = (
        "import sys, random; from pipelines import bpe; from tests.pipelines import test_bpe as t\n"
        "texts = t._texts(1500, 7); random.Random(9).shuffle(texts)\n"
        "sys.stdout.buffer.write(bpe.save(bpe.train(iter(texts), 1200, 'split')))"
    )
    for threads in ("1", "4"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads, "PYTHONPATH": "."}
        files.add(
            subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True).stdout
        )
    assert len(files) == 1


def test_a_trained_tokenizer_has_bytes_then_merges_then_the_end_of_document():
    tokenizer = bpe.train(iter(["low low lower lowest", "new newer"] * 3), 300, "runs")
    bytes_in_order = bpe.bytes_only()
    assert tokenizer.tokens[:256] == bytes_in_order.tokens[:256]
    assert sorted(tokenizer.tokens[:256]) == [bytes([byte]) for byte in range(256)]
    assert tokenizer.tokens[256:258] == (b"lo", b"low")
    assert tokenizer.end_of_document == tokenizer.vocab_size - 1 == tokenizer.specials[0]
    assert tokenizer.vocab_size == 257 + len(tokenizer.merges)


def test_a_small_corpus_gives_the_vocabulary_that_came_out():
    assert bpe.train(iter([]), 5_000, "runs") == bpe.bytes_only()
    assert bpe.train(iter(["ab ab"]), 5_000, "runs").tokens[256:-1] == (b"ab",)  # " ab" occurs once
    with pytest.raises(ValueError, match="at least 257"):
        bpe.train(iter([]), 256, "runs")


def test_the_end_of_document_is_never_learned_from_texts():
    tokenizer = bpe.train(iter(["<|endoftext|>"] * 50), 400, "runs")
    ids, _ = bpe.Encoder(tokenizer)(_large(["<|endoftext|>"]))
    assert tokenizer.end_of_document not in ids.tolist()
    assert bpe.decode(tokenizer, ids) == b"<|endoftext|>"


# -- the file --------------------------------------------------------------------------------------------------------


def test_the_file_gives_the_tokenizer_back(tokenizer):
    again = bpe.load(bpe.save(tokenizer), "again")
    assert again == tokenizer
    assert again.sha256 == tokenizer.sha256
    assert tokenizer.sha256 != bpe.bytes_only().sha256


def test_a_given_file_of_hugging_face_keeps_its_ids():
    """GPT-2's own pre-tokenizer, special tokens first, merges as pairs and as strings as older versions write them."""
    given = tokenizers.Tokenizer(tokenizers.models.BPE())
    given.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|pad|>", "<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    given.train_from_iterator(_texts(500, 8), trainer)
    loaded = bpe.load(given.to_str().encode(), "given")
    assert (loaded.vocab_size, loaded.specials, loaded.end_of_document, loaded.digits) == (900, (0, 1), 1, "runs")
    old = json.loads(given.to_str())
    old["model"]["merges"] = [" ".join(pair) for pair in old["model"]["merges"]]
    del old["model"]["ignore_merges"]
    assert bpe.load(json.dumps(old).encode(), "old") == loaded
    texts = [text for text in EDGES + _texts(200, 9) if "<|" not in text]
    expected = [encoding.ids for encoding in given.encode_batch(texts)]
    assert _ids(bpe.Encoder(loaded)(_large(texts))) == expected
    assert _hugging_face(loaded, texts) == expected


def _changed(change) -> bytes:
    content = json.loads(bpe.save(bpe.train(iter(["low low lower"] * 3), 300, "runs")))
    change(content)
    return json.dumps(content).encode()


def _drop_byte(content):
    vocabulary = content["model"]["vocab"]
    vocabulary["lowlow"] = vocabulary.pop("Z")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"].update(type="WordPiece"), "model.type"),
        (lambda c: c["model"].update(type="Unigram", vocab=[["a", 0.5]]), "model.type"),
        (lambda c: c.pop("model"), "model: Field required"),
        (lambda c: c["model"]["vocab"].update(a="1"), "model.vocab.a"),
        (lambda c: c.update(normalizer={"type": "NFC"}), "a normalizer"),
        (lambda c: c.update(pre_tokenizer=None), "pre_tokenizer"),
        (lambda c: c.update(pre_tokenizer="ByteLevel"), "pre_tokenizer"),
        (lambda c: c.update(pre_tokenizer={"type": "Sequence", "pretokenizers": 3}), "pre_tokenizer"),
        (lambda c: c.update(pre_tokenizer={"type": "Sequence"}), "pre_tokenizer"),
        (lambda c: c.update(pre_tokenizer={"type": "Metaspace"}), "pre_tokenizer"),
        (lambda c: c["pre_tokenizer"].update(add_prefix_space=True), "pre_tokenizer"),
        (lambda c: c["pre_tokenizer"].update(use_regex=False), "pre_tokenizer"),
        (lambda c: c["added_tokens"].append({"id": 9, "content": "x", "special": False}), "added tokens"),
        (lambda c: c["added_tokens"].append({"id": 9, "content": "<s>", "special": True}), "without holes"),
        (lambda c: c["added_tokens"][0].update(id=3), "two ids"),
        (lambda c: c["added_tokens"].clear(), "no special token <|endoftext|>"),
        (lambda c: c["model"].update(dropout=0.1), "dropout"),
        (lambda c: c["model"].update(continuing_subword_prefix="##"), "continuing_subword_prefix"),
        (lambda c: c["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix"),
        (lambda c: c["model"].update(ignore_merges=True), "ignore_merges"),
        (lambda c: c["model"]["merges"].append(["q", "q"]), "needs 'qq'"),
        (lambda c: c["model"]["merges"].append(["l", "o"]), "listed twice"),
        (lambda c: c["model"]["vocab"].update({"▁the": len(c["model"]["vocab"])}), "is not byte-level"),
        (_drop_byte, "no token for the byte 0x5a"),
    ],
)
def test_what_is_unsupported_is_said_in_one_line(change, message):
    with pytest.raises(UserError, match=r"^some/tokenizer.json: [^\n]*$") as caught:
        bpe.load(_changed(change), "some/tokenizer.json")
    assert message in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000])
def test_what_is_no_tokenizer_is_said_in_one_line(data):
    with pytest.raises(UserError, match=r"^x.json: no byte-level BPE tokenizer.json: [^\n]+$"):
        bpe.load(data, "x.json")


# -- packing ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 65_499), max_size=9), max_size=9), st.sampled_from(["<u2", "<i4"]))
def test_packed_ids_are_little_endian_bytes(documents, dtype):
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    ids = np.array([number for document in documents for number in document], np.uint32)
    packed = bpe.pack_ids(ids, offsets, np.dtype(dtype))
    packed.validate(full=True)
    assert packed.type == pa.large_binary()
    size = np.dtype(dtype).itemsize
    assert packed.to_pylist() == [b"".join(n.to_bytes(size, "little") for n in document) for document in documents]
