"""Counts of terms against a plain search for tuples of words."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.terms import build_terms, count_terms, read_terms
from pipelines.dedup.words import words_reference
from pipelines.errors import UserError

word = st.sampled_from("a b the The über 漢 x1".split())
gap = st.sampled_from([" ", ", ", "\n", "-"])
phrase = st.lists(st.tuples(word, gap), min_size=1, max_size=3).map(lambda found: "".join(a + b for a, b in found))


@given(
    st.lists(st.lists(phrase, max_size=20).map("".join), max_size=5),
    st.dictionaries(st.sampled_from("pqrs"), st.lists(st.one_of(phrase, st.just("...")), max_size=5), min_size=1),
)
@settings(max_examples=80)
def test_counts_by_list_are_those_of_a_plain_search(documents, lists):
    index = build_terms(lists)
    expected = []
    for document in documents:
        words, row = words_reference(document), []
        for some in lists.values():
            wanted = {tuple(words_reference(one)) for one in some} - {()}
            row.append(sum(tuple(words[at : at + len(w)]) == w for w in wanted for at in range(len(words))))
        expected.append(row)
    assert index.names == tuple(lists)  # the recipe's order, not the alphabet's
    assert count_terms(pa.array(documents, pa.large_string()), index).to_pylist() == expected
    assert index.texts == {name: (len(some), some.count("...")) for name, some in lists.items()}


def test_a_word_is_not_found_inside_another_and_a_phrase_crosses_lines():
    index = build_terms({"one": ["gay", "non-binary", "binary"], "two": ["Gay"]})
    texts = ["Gay, gaya; GAY! non\nbinary Nonbinary", "", "binary" * 3]
    assert count_terms(pa.array(texts, pa.large_string()), index).to_pylist() == [[4, 2], [0, 0], [0, 0]]


def test_a_phrase_across_the_batches_of_words_counts_once():
    """Words come 512 at a time."""
    words = [f"w{n}" for n in range(1200)]
    index = build_terms({"x": [" ".join(words[510:515]), "w511", " ".join(words[1000:1064])]})
    assert count_terms(pa.array([" ".join(words)], pa.large_string()), index).to_pylist() == [[3]]


def test_without_lists_there_is_no_count():
    assert count_terms(pa.array(["a text"], pa.large_string()), build_terms({})).to_pylist() == [None]


def test_a_list_is_a_phrase_a_line(tmp_path):
    (tmp_path / "list").write_bytes(gzip.compress("\ufeffone\r\n\n  two words \nüber".encode()))
    assert list(read_terms(str(tmp_path / "list"))) == ["one", "two words", "über"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n \n", r"list: no word in it; a list of terms has one word or phrase a line$"),
        (b"good\n\xff", r"list: line 2: not UTF-8 \(.*\); mend the list$"),
        (b"a " * 65, r"list: line 1: a phrase of over 64 words; shorten it$"),
        (b"a" * 70000, r"list: line 1: over 65536 bytes"),
        (gzip.compress(b"word\n", mtime=0)[:-6], r"list: cannot be read to its end \(.*\); mend the list$"),
    ],
)
def test_a_file_that_is_no_list_is_one_line(tmp_path, content, said):
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(UserError, match=said):
        list(read_terms(str(tmp_path / "list")))
