"""Language identification by the compiled kernel against fastText itself: labels equal, scores within a step of 1e-4."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import packages
from pipelines.errors import UserError
from quality import language, language_model
from quality.language import LanguageIdentifier, reference
from tests.runs import REPOSITORY

EDGES = [
    "",
    "\n \t",
    "\u00a0",
    "a",
    "hello world",
    "one\ntwo\nthree lines of English text",
    "__label__en bonjour tout le monde",
    "a\0b NUL between",
    "x" * 5000,
    "z" * 70_000 + " und das ist ein Satz",
    "\u00e9" * 300 + " la maison est belle",
    "\U0001f600 \U0001f600",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8",
    "mixed \u041f\u0440\u0438\u0432\u0435\u0442 \u65e5\u672c hello",
    "\t\x0b\x0cword",
    "word " * 3000,
]


@pytest.fixture(scope="module")
def model():
    try:
        path = packages.language_model()
    except UserError as error:
        pytest.skip(str(error))
    return language.parse(path.read_bytes(), str(path))


@pytest.fixture(scope="module")
def identifier(model):
    return LanguageIdentifier(model, None)


def _array(texts):
    return pa.array(texts, pa.large_string())


def _assert_equal(found, expected):
    assert found[0].to_pylist() == expected[0].to_pylist()
    assert found[1].tolist() == pytest.approx(expected[1].tolist(), abs=1.01e-4)  # both are rounded to a step


def test_edges_are_fasttexts(model, identifier):
    _assert_equal(identifier(_array(EDGES)), reference(model, _array(EDGES)))
    assert identifier(_array(EDGES[:3]))[0].to_pylist() == [None, None, None]


def test_the_word_that_ends_a_line_hides_nothing(model, identifier):
    """The one departure: fastText reads nothing behind "</s>"."""
    hidden = "</s> Das ist ein deutscher Satz, der nicht kurz ist."
    assert identifier(_array([hidden]))[0].to_pylist() == ["de"]
    assert reference(model, _array([hidden]))[0].to_pylist() != ["de"]


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200).filter(lambda text: "</s>" not in text)
_texts = st.lists(_text, min_size=1, max_size=3)


@given(_texts)
def test_any_text_is_fasttexts(model, texts):
    _assert_equal(LanguageIdentifier(model, None, 256)(_array(texts)), reference(model, _array(texts)))


REAL = [("bench/multi.jsonl.gz", 800), ("bench/docs.jsonl.gz", 400), ("web/newsgroups20.jsonl.gz", 400)]


@pytest.mark.parametrize(("name", "documents"), REAL)
def test_real_texts_are_fasttexts(real_data, model, identifier, name, documents):
    with gzip.open(real_data / name) as lines:
        texts = _array([json.loads(line)["text"] for line in itertools.islice(lines, documents)])
    _assert_equal(identifier(texts), reference(model, texts))


def test_only_the_first_characters_are_judged_if_asked_for(model):
    text = "Das ist ein deutscher Satz. " * 3 + "And this is English. " * 40
    assert LanguageIdentifier(model, None)(_array([text]))[0].to_pylist() == ["en"]
    assert LanguageIdentifier(model, 80)(_array([text]))[0].to_pylist() == ["de"]


def test_no_result_depends_on_cache_batch_or_thread(model):
    texts = _array(EDGES * 3 + [f"word{n} sentence{n} of the {n} kind" for n in range(500)])
    first = LanguageIdentifier(model, None)
    cold, warm = first(texts), first(texts)
    small = LanguageIdentifier(model, None, 4)(texts)
    sliced = first(texts.slice(5, 40))
    for found in (warm, small):
        assert found[0].equals(cold[0])
        assert np.array_equal(found[1], cold[1])
    assert sliced[0].equals(cold[0].slice(5, 40))
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: LanguageIdentifier(model, None)(texts), range(8)):
            assert np.array_equal(found[1], cold[1])


def test_no_array_is_left_by_its_bounds(model, tmp_path):
    """The kernels compiled with bounds checks, over the edges and a text of every length around a block."""
    program = (
        "import pyarrow as pa; from pipelines import packages; from quality import language;"
        "from tests.quality.test_language import EDGES;"
        "m = language.parse(packages.language_model().read_bytes(), 'm');"
        "texts = EDGES + ['ab ' * n for n in range(60)];"
        "texts += ['\u00e9' * n + ' x' for n in range(140)] + ['\u65e5' * n for n in range(140)];"
        "print(len(language.LanguageIdentifier(m, None, 16)(pa.array(texts, pa.large_string()))[0]))"
    )
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(len(EDGES) + 340), done.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "is cut short"),
        (lambda content: content + b"x", "1 bytes follow the output"),
        (lambda content: b"x" + content, "not a fastText model of version 12"),
        (lambda content: b"", "header is cut short"),
    ],
)
def test_a_file_that_is_not_the_model_is_one_line(model, damage, message):
    with pytest.raises(UserError, match=r"^m: not lid\.176\.ftz") as caught:
        language_model.parse(damage(model.content), "m")
    assert message in str(caught.value)
    with pytest.raises(UserError, match="sha256 differs"):
        language.parse(damage(model.content), "m")
