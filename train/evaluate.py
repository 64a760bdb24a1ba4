"""Bits that a checkpoint needs for documents, one number a document, and bits per byte by domain.

* **A document's bits** are the sum of -log2 p(token | what stands before it) over the tokens of its text, the first one given the
  end-of-document token, which is what stands before every document in the shards. The end-of-document token behind the text is not
  scored: it has no bytes, and what it costs tells of the lengths of the documents a model was trained on and not of the text.
  (A model trained with `data.masked` never saw that token first; its first token is then a guess, the same for all models.)
* **Bytes** are the UTF-8 bytes of the text, so that bits per byte compare models of any tokenizer. A domain's figure is the sum of
  bits by the sum of bytes: long documents count as much as they are long.
* **Documents longer than the model's context** are read in windows of one whole context that overlap; each token is scored once, in
  the first window that holds it, with at least `overlap` tokens before it in sight. The last window ends with the document.
* **A document's bits know no neighbour**: dropless routing, no noise, nothing attended across rows; windows of like length share a
  call, filled up behind their ends where no token looks. What is left is float rounding, below 1e-6 of the value in float32.
  Scores have the precision of the weights; sums are float64 and exact.

An evaluation set is a file of JSON lines (`text`, optional `cluster`: documents that belong together, as those of a thread or host)
or the validation shards of a corpus, by source, whose own ids are scored as they are.

Shape suffixes: B windows, T positions, N scored tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines import bpe, bpe_file
from pipelines.errors import UserError
from train import losses, weights
from train.corpus import Corpus, Shard, check_ids
from train.model import Decoder

_TOKENS = 8192  # positions of a call
_LOGITS = 1 << 22  # at once: what the caches of a CPU hold, as in losses


@dataclass(frozen=True, slots=True)
class Document:
    """One document to score. `cluster` is its own name where it stands alone. ids: int64 [tokens], without end of document."""

    domain: str
    doc: str
    cluster: str
    text: str
    ids: np.ndarray


@dataclass(frozen=True, slots=True)
class DocumentLoss:
    """A row of the result: bits of all the document's tokens, UTF-8 bytes of its text."""

    domain: str
    doc: str
    cluster: str
    bits: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Window:
    """Inputs ids[begin:stop] of a sequence; those from `scored` on have targets that count: ids[scored + 1 : stop + 1]."""

    sequence: int
    begin: int
    scored: int
    stop: int


@dataclass(frozen=True, slots=True)
class Score:
    """Bits of a sequence's scored tokens, how many they are, and whether each was the likeliest where it stood."""

    bits: float
    tokens: int
    greedy: bool


class Encoder:
    """Texts to ids, as the shards are made: the name of a special token within a text stays characters."""

    def __init__(self, data: bytes, name: str) -> None:
        """data: a tokenizer.json; name: where it stands, for errors."""
        from tokenizers import Tokenizer as Codec

        self.tokenizer, self.name, self.sha256 = bpe_file.load(data, name), name, hashlib.sha256(data).hexdigest()
        self._codec = Codec.from_buffer(data)
        self._codec.encode_special_tokens = True

    def __call__(self, text: str) -> np.ndarray:
        """int64 [tokens]."""
        return np.array(self._codec.encode(text, add_special_tokens=False).ids, np.int64)


def load(checkpoint: str, tokenizer: str | None = None, device: Any = "cpu") -> tuple[Decoder, Encoder]:
    """The model of a checkpoint folder, and its tokenizer or the one given. Raises UserError where the two do not fit."""
    config = weights.read_config(checkpoint)
    found = weights.read_tokenizer(checkpoint, tokenizer, config)
    if found is None:
        raise UserError(f"{checkpoint}: no {weights.TOKENIZER} in it: name the run's, e.g. RUN/models/tokenizer.json")
    return weights.load_model(checkpoint, device), Encoder(found[0], tokenizer or str(Path(checkpoint, weights.TOKENIZER)))


# -- evaluation sets ----------------------------------------------------------------------------------------------------------


def read_documents(path: str, encoder: Encoder, domain: str | None = None) -> list[Document]:
    """The documents of a file of JSON lines, named by the file and the line (from 0). The domain is the file's name by default.

    Raises UserError, naming the line, on a record without text, and on a set without documents.
    """
    name, domain = Path(path).name, domain or Path(path).name.removesuffix(".jsonl")
    documents = []
    for number, record in read_records(path):
        text, cluster = record.get("text"), record.get("cluster")
        if not isinstance(text, str) or not text:
            raise UserError(f'{path}: line {number + 1} has no text: every record needs "text", a string that is not empty')
        if cluster is not None and not isinstance(cluster, str | int):
            raise UserError(f"{path}: line {number + 1}: cluster is {cluster!r:.40}; give a string or an integer, or leave it out")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{path}: line {number + 1}: text holds half a surrogate pair ({error.reason}): mend it") from error
        doc = f"{name}#{number}"
        documents.append(Document(domain, doc, doc if cluster is None else str(cluster), text, encoder(text)))
    if not documents:
        raise UserError(f"{path}: no documents in it; an evaluation set needs at least one")
    return documents


def read_records(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 0, object) of every line that is not blank. Raises UserError, naming the line, on anything else."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise UserError(f"{path}: line {number + 1} is not JSON ({error}); give one object a line") from error
                if not isinstance(record, dict):
                    raise UserError(f"{path}: line {number + 1} is no JSON object but {type(record).__name__}; give one a line")
                yield number, record
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a file of JSON lines") from error


def shard_documents(corpus: Corpus, encoder: Encoder) -> list[Document]:
    """The documents of all validation shards; a domain is a source, a name the shard's and the document's number in it.

    Raises UserError where the shards are of another tokenizer or hold no document.
    """
    documents = [document for shard in corpus.validation for document in _documents_of(shard, corpus, encoder)]
    if not documents:
        raise UserError(f"{corpus.path}: no validation documents; build with tokens.validation above 0, or give a set of your own")
    return documents


def _documents_of(shard: Shard, corpus: Corpus, encoder: Encoder) -> Iterator[Document]:
    file, tokenizer, vocabulary = shard.file, encoder.tokenizer, corpus.vocabulary
    if vocabulary.size != tokenizer.vocab_size or vocabulary.sha256 not in (None, encoder.sha256):
        raise UserError(
            f"{corpus.path}: shards of another tokenizer ({vocabulary.size} ids) than {encoder.name} ({tokenizer.vocab_size} ids): "
            "give a checkpoint that was trained on this run's tokenizer"
        )
    for number in range(file.documents):
        ids = file.ids[file.starts[number] : file.starts[number + 1]].astype(np.int64)
        check_ids(file, int(file.starts[number]), ids, vocabulary)
        if len(ids) and ids[-1] == tokenizer.end_of_document:
            ids = ids[:-1]
        try:
            text = bpe.decode(tokenizer, ids).decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{file.prefix}.bin: document {number} is no UTF-8 text under {encoder.name}: other shards") from error
        doc = f"{shard.name}#{number}"
        yield Document(shard.source, doc, doc, text, ids)


# -- scores -------------------------------------------------------------------------------------------------------------------


def document_losses(
    model: Decoder, encoder: Encoder, documents: Sequence[Document], overlap: int | None = None, tokens_at_once: int = _TOKENS
) -> list[DocumentLoss]:
    """A row a document, in the order given.

    overlap: tokens that a window shows again of the one before it; None is half of the model's context. tokens_at_once bounds a
    call's positions and with them memory; it changes no figure but by rounding. Raises UserError where there are no documents, the
    tokenizer's vocabulary is not the model's, or the model gives numbers that are none.
    """
    if not documents:
        raise UserError("no documents to evaluate on: give a set with at least one")
    check_vocabulary(model, encoder)
    end = encoder.tokenizer.end_of_document
    sequences = [np.concatenate([[end], document.ids]) for document in documents]
    scores = score(model, sequences, [0] * len(sequences), overlap, tokens_at_once)
    return [
        DocumentLoss(one.domain, one.doc, one.cluster, scored.bits, len(one.text.encode()))
        for one, scored in zip(documents, scores, strict=True)
    ]


def bits_per_byte(rows: Iterable[DocumentLoss]) -> dict[str, dict[str, Any]]:
    """{domain: {documents, bits, bytes, bits_per_byte}}, domains by name; bits_per_byte is None where there are no bytes."""
    found: dict[str, list[DocumentLoss]] = {}
    for row in rows:
        found.setdefault(row.domain, []).append(row)
    told = {}
    for domain, mine in sorted(found.items()):
        bits, size = math.fsum(row.bits for row in mine), sum(row.bytes for row in mine)
        told[domain] = {"documents": len(mine), "bits": bits, "bytes": size, "bits_per_byte": bits / size if size else None}
    return told


def check_vocabulary(model: Decoder, encoder: Encoder) -> None:
    """Raises UserError where the tokenizer is not of the model's size."""
    if encoder.tokenizer.vocab_size != model.config.vocab_size:
        raise UserError(
            f"{encoder.name}: {encoder.tokenizer.vocab_size} ids, but the model has {model.config.vocab_size}: give the tokenizer "
            "of the run that it was trained on"
        )


def score(
    model: Decoder, sequences: Sequence[np.ndarray], first: Sequence[int], overlap: int | None = None, tokens_at_once: int = _TOKENS
) -> list[Score]:
    """The scores of each sequence's tokens behind position `first` (0: all but the sequence's first, which is only read).

    sequences: int64 [tokens] each, of at least first + 1 tokens. Raises UserError on an overlap that is not below the context, and
    where the model's losses are not finite.
    """
    context = model.config.context
    overlap = context // 2 if overlap is None else overlap
    if not 0 <= overlap < context:
        raise UserError(f"overlap {overlap}: windows of {context} tokens overlap by 0 to {context - 1}")
    every = [
        Window(number, *cut)
        for number, (ids, start) in enumerate(zip(sequences, first, strict=True))
        for cut in windows(len(ids) - 1, start, context, overlap)
    ]
    parts: list[list[tuple[list[float], bool]]] = [[] for _ in sequences]
    every.sort(key=lambda window: (window.begin - window.stop, window.sequence, window.begin))  # longest first
    while every:
        rows = max(1, tokens_at_once // (every[0].stop - every[0].begin))
        now, every = every[:rows], every[rows:]
        for window, found in zip(now, _read(model, sequences, now), strict=True):
            parts[window.sequence].append(found)
    scores = []
    for mine in parts:
        nats = [one for some, _ in mine for one in some]
        scores.append(Score(math.fsum(nats) / math.log(2), len(nats), all(greedy for _, greedy in mine)))
    return scores


def windows(targets: int, first: int, context: int, overlap: int) -> Iterator[tuple[int, int, int]]:
    """(begin, scored, stop) as in `Window`: every target from `first` on counts in just one window, which shows at least `overlap`
    inputs before it, or all there are."""
    scored = first
    while scored < targets:
        begin = max(0, scored - overlap)
        stop = min(targets, begin + context)
        yield max(0, stop - context), scored, stop
        scored = stop


def padded(sequences: Sequence[np.ndarray], now: Sequence[Window]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens int64, valid bool, scored bool) [B, T] of a call: windows are filled up behind their ends, where no token looks."""
    shape = (len(now), max(window.stop - window.begin for window in now))
    tokens_BT, valid_BT, scored_BT = np.zeros(shape, np.int64), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for row, window in enumerate(now):
        size = window.stop - window.begin
        tokens_BT[row, :size], valid_BT[row, :size] = sequences[window.sequence][window.begin : window.stop], True
        scored_BT[row, window.scored - window.begin : size] = True
    return tokens_BT, valid_BT, scored_BT


@torch.inference_mode()
def _read(model: Decoder, sequences: Sequence[np.ndarray], now: Sequence[Window]) -> list[tuple[list[float], bool]]:
    """(nats of the scored tokens, whether all were the likeliest) of each window."""
    tokens_BT, valid_BT, scored_BT = padded(sequences, now)
    targets = [sequences[window.sequence][window.scored + 1 : window.stop + 1] for window in now]
    weight_VD = model.output_weight
    device = weight_VD.device
    hidden_BTD, _ = model.hidden(torch.from_numpy(tokens_BT).to(device), valid_BT=torch.from_numpy(valid_BT).to(device))
    hidden_ND = hidden_BTD[torch.from_numpy(scored_BT).to(device)]
    target_N = torch.from_numpy(np.concatenate(targets)).to(device)
    loss_N, likeliest_N = [], []
    step = max(1, _LOGITS // len(weight_VD))
    for hidden_nD, target_n in zip(hidden_ND.split(step), target_N.split(step), strict=True):
        logits_nV = losses.logits(hidden_nD, weight_VD)
        loss_N.append(logits_nV.logsumexp(1) - logits_nV.gather(1, target_n[:, None])[:, 0])
        likeliest_N.append(logits_nV.argmax(1) == target_n)
    nats_N, cuts = torch.cat(loss_N), [len(some) for some in targets]
    if not torch.isfinite(nats_N).all():
        raise UserError("the model's losses are not finite: its training diverged; take an earlier checkpoint")
    likeliest = torch.cat(likeliest_N).split(cuts)
    return [(some.tolist(), bool(which.all())) for some, which in zip(nats_N.split(cuts), likeliest, strict=True)]
