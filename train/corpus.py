"""What a model is trained on: the shards that a `blend.json` names, opened and checked, and the vocabulary of their ids.

A corpus is given as a variant's folder of a winnow run (`DIR/tokens/VARIANT`), as a `blend.json` of one's own (prefixes relative to
the file; `tokens`, `documents` and `epochs` may be left out), or as the prefix of one Megatron `.bin/.idx` pair. Its tokenizer is
the run's `models/tokenizer.json`, whichever of the three is given; shards from elsewhere need the size of a vocabulary instead.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from pipelines import bpe_file
from pipelines.errors import UserError
from train.index import TokenFile, open_tokens

_SHARD_NAME = re.compile(r"^(.+)-\d{5}-of-\d{5}$")
_LEVELS = 2  # a variant's folder, and train/ or validation/ in it
_LOOKED_AT = 64  # documents of a shard whose last token is held against the tokenizer's end of document


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Ids are 0 to size - 1. `path` and `sha256` of the tokenizer's file, and its end-of-document id, where one is known."""

    size: int
    end_of_document: int | None = None
    sha256: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """An open shard: its name in the blend, its source, its share of a batch, and how often it may be gone through."""

    name: str
    source: str
    file: TokenFile
    weight: float
    epochs: float = math.inf


@dataclass(frozen=True, slots=True)
class Corpus:
    """Shards with at least one sequence to learn from (two tokens), by split."""

    path: str
    train: tuple[Shard, ...]
    validation: tuple[Shard, ...]
    vocabulary: Vocabulary

    @property
    def digest(self) -> str:
        """Names the order of training: a run that goes on must find it again."""
        shards = [[shard.name, shard.weight, len(shard.file)] for shard in self.train]
        content = json.dumps([shards, self.vocabulary.size, self.vocabulary.sha256])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def open_corpus(path: str, tokenizer: str | None = None, vocab_size: int | None = None) -> Corpus:
    """The corpus at `path` (see the head of this file). Raises UserError, one line, on anything that cannot be trained on."""
    if "://" in path:
        raise UserError(f"{path}: shards are memory-mapped; copy the variant's folder to a local disk and give its path")
    if os.path.isdir(path):
        folder, blend = path, _read_blend(os.path.join(path, "blend.json"))
    elif os.path.isfile(path):
        folder, blend = os.path.dirname(path), _read_blend(path)
    elif os.path.isfile(path + ".idx"):
        folder, blend = os.path.dirname(path), {"train": [{"prefix": os.path.basename(path), "weight": 1.0}]}
    else:
        raise UserError(f"{path}: no such data; give DIR/tokens/VARIANT, a blend.json, or the prefix of a .bin/.idx pair")
    vocabulary = _vocabulary(path, folder, tokenizer, vocab_size)
    train, validation = (_open(path, folder, blend.get(split, []), vocabulary) for split in ("train", "validation"))
    if not train:
        raise UserError(f"{path}: no training shard holds a token to learn; the variant is empty, loosen its rules and build again")
    return Corpus(path, train, validation, vocabulary)


def _read_blend(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            blend = json.load(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a folder tokens/VARIANT of a finished build") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); build the variant again") from error
    if not isinstance(blend, dict) or not all(isinstance(blend.get(split, []), list) for split in ("train", "validation")):
        raise UserError(f'{path}: a blend is an object {{"train": [..], "validation": [..]}} of shards')
    return blend


def _open(path: str, folder: str, entries: list[Any], vocabulary: Vocabulary) -> tuple[Shard, ...]:
    shards: list[Shard] = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("prefix"), str):
            raise UserError(f"{path}: a shard of the blend has no prefix: {entry!r:.80}")
        prefix, weight, epochs = entry["prefix"], entry.get("weight"), entry.get("epochs", math.inf)
        if not _number(weight) or not 0 <= weight < math.inf or not _number(epochs) or epochs <= 0:
            raise UserError(f"{path}: {prefix}: weight {weight!r}, epochs {epochs!r}; both must be numbers, not negative")
        if any(prefix == shard.name for shard in shards):
            raise UserError(f"{path}: {prefix} stands twice in the blend; give it one weight")
        file = open_tokens(os.path.join(folder, prefix))
        if entry.get("tokens", len(file)) != len(file):
            raise UserError(f"{path}: {prefix} has {len(file)} tokens, the blend says {entry['tokens']}; build the variant again")
        if weight > 0 and len(file) > 1:
            _check_tokenizer(file, vocabulary)
            name = os.path.basename(prefix)
            match = _SHARD_NAME.match(name)
            shards.append(Shard(prefix, match[1] if match else name, file, float(weight), float(epochs)))
    return tuple(shards)


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _vocabulary(path: str, folder: str, tokenizer: str | None, vocab_size: int | None) -> Vocabulary:
    if tokenizer is None:
        tokenizer = _beside(folder)
    if tokenizer is None:
        if vocab_size is None:
            raise UserError(f"{path}: no tokenizer lies beside the shards; give data.tokenizer, or data.vocab_size")
        return Vocabulary(vocab_size)
    try:
        with open(tokenizer, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"{tokenizer}: cannot be read ({error.strerror}); give the tokenizer.json of the shards") from error
    loaded = bpe_file.load(content, tokenizer)
    if vocab_size not in (None, loaded.vocab_size):
        raise UserError(f"data.vocab_size {vocab_size}: {tokenizer} has {loaded.vocab_size} ids; leave the size out")
    return Vocabulary(loaded.vocab_size, loaded.end_of_document, hashlib.sha256(content).hexdigest(), tokenizer)


def _beside(folder: str) -> str | None:
    """The tokenizer of the run DIR whose folder DIR/tokens/VARIANT, or a folder within it, this is."""
    for up in range(2, 2 + _LEVELS):
        found = os.path.normpath(os.path.join(folder, *[".."] * up, "models", "tokenizer.json"))
        if os.path.isfile(found):
            return found
    return None


def _check_tokenizer(file: TokenFile, vocabulary: Vocabulary) -> None:
    """Raises UserError where documents do not end as the tokenizer says: the shards are another tokenizer's."""
    if vocabulary.end_of_document is None or not file.documents:
        return
    documents = np.unique(np.linspace(0, file.documents - 1, min(_LOOKED_AT, file.documents)).astype(np.int64))
    begin, stop = file.starts[documents], file.starts[documents + 1]
    filled = stop > begin
    wrong = file.ids[stop[filled] - 1] != vocabulary.end_of_document
    if wrong.any():
        number = int(wrong.argmax())
        raise UserError(
            f"{file.prefix}.bin: document {documents[filled][number]} ends with id {file.ids[stop[filled][number] - 1]}, not with "
            f"the end-of-document id {vocabulary.end_of_document} of {vocabulary.path}; these are shards of another tokenizer"
        )


def check_ids(file: TokenFile, first: int, ids: np.ndarray, vocabulary: Vocabulary) -> None:
    """Raises UserError where ids (of tokens `first`, ...) are outside the vocabulary."""
    if len(ids) and (ids.max() >= vocabulary.size or ids.min() < 0):
        token = first + int(((ids >= vocabulary.size) | (ids < 0)).argmax())
        raise UserError(
            f"{file.prefix}.bin: id {file.ids[token]} in document {file.document_at(token)} is outside the vocabulary of "
            f"{vocabulary.size}; these are shards of another vocabulary"
        )
