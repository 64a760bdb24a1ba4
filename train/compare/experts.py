"""Do experts specialise by domain? Counts of the experts that documents were sent to, and mutual information against chance.

* **What counts.** Every token of a document's text counts once, with the experts that each sparse layer chose for it: `top_k`
  assignments a token, each 1 / top_k of it. The text is read as `train.evaluate` reads it: behind the end-of-document token (which
  does not count), long documents in windows that overlap by half a context, dropless, without noise, nothing routed at padding.
* **Share** of an expert in a domain: its assignments by all of the domain's in that layer; the shares of a layer add up to 1.
* **Mutual information** in bits between a domain D, each as likely as any other, and the expert E that an assignment drawn from it
  names: I(D; E) = sum over d, e of p(d) p(e|d) log2(p(e|d) / p(e)), p(d) = 1 / domains, p(e) = the mean of p(e|d) (Shannon 1948;
  with equal weights it is the Jensen-Shannon divergence of the domains' shares, Lin 1991). 0: experts do not know domains. At most
  log2(min(domains, experts)), and less where a token names several experts.
* **Against shuffled labels.** Finite samples give information above 0, and so do documents that differ from one another within a
  domain. So the labels of whole clusters (thread, host, author; else the document) are exchanged at random, which leaves every
  document's own routing as it is. p = (1 + permutations with at least as much information) / (1 + permutations), which is never 0
  (Phipson and Smyth 2010). A permutation is the order of hashes of (seed, its number, domain, cluster): no generator, and the
  documents' order changes nothing.

One question, one p: that of the mean over layers. The layers' own p say where it comes from and are not corrected for being many.

Shape suffixes: N documents, U units (clusters within a domain), L sparse layers, D domains, E experts, B windows, T positions,
K choices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipelines.errors import UserError
from train.evaluate import Document, Encoder, Window, check_vocabulary, padded, windows
from train.model import Decoder
from train.moe import RoutingOptions

PERMUTATIONS = 200
_TOKENS = 8192  # positions of a call
_TIE = 1e-12  # bits: two values that differ by rounding only are one
_RECORDED = RoutingOptions(record_choices=True)


def document_counts(model: Decoder, encoder: Encoder, documents: Sequence[Document], tokens_at_once: int = _TOKENS) -> np.ndarray:
    """int64 [N, L, E]: assignments of each document's tokens to each expert, layers and documents in order.

    A document of t tokens has t * top_k of them in every layer. tokens_at_once bounds a call's positions and changes no count but
    where two logits tie to rounding. Raises UserError on a dense model, without documents, and on another tokenizer's model.
    """
    moe = model.config.moe
    if moe is None:
        raise UserError("the model is dense: it has no experts whose use could be counted")
    if not documents:
        raise UserError("no documents to route: give a set with at least one")
    check_vocabulary(model, encoder)
    sequences = [np.concatenate([[encoder.tokenizer.end_of_document], one.ids]) for one in documents]
    context = model.config.context
    every = [
        Window(number, *cut) for number, ids in enumerate(sequences) for cut in windows(len(ids), 1, context, context // 2)
    ]  # as if one more token came: every token of the text is then read
    every.sort(key=lambda window: (window.begin - window.stop, window.sequence, window.begin))  # longest first
    counts_NLE = np.zeros((len(documents), model.config.n_sparse, moe.experts), np.int64)
    while every:
        rows = max(1, tokens_at_once // (every[0].stop - every[0].begin))
        now, every = every[:rows], every[rows:]
        for window, counts_LE in zip(now, _route(model, sequences, now, moe.experts), strict=True):
            counts_NLE[window.sequence] += counts_LE
    return counts_NLE


@torch.inference_mode()
def _route(model: Decoder, sequences: Sequence[np.ndarray], now: Sequence[Window], experts: int) -> np.ndarray:
    """int64 [B, L, E]: assignments of the positions of each window that count in it."""
    tokens_BT, valid_BT, counted_BT = padded(sequences, now)
    device = model.output_weight.device
    _, routed = model.hidden(
        torch.from_numpy(tokens_BT).to(device), valid_BT=torch.from_numpy(valid_BT).to(device), routing=_RECORDED
    )
    assert routed is not None
    assert routed.choices_BTK is not None
    choices_LBTK = routed.choices_BTK.cpu().numpy()  # stacked over layers
    layers = len(choices_LBTK)
    place_LBTK = (np.arange(len(now))[:, None, None] * layers + np.arange(layers)[:, None, None, None]) * experts + choices_LBTK
    counts = np.bincount(place_LBTK[:, counted_BT].ravel(), minlength=len(now) * layers * experts)
    return counts.reshape(len(now), layers, experts)


def shares(counts_NLE: np.ndarray, documents: Sequence[Document]) -> dict[str, list[list[float]]]:
    """{domain: the share of each expert, a list a layer}, domains by name. Raises UserError on a domain without a token."""
    names, counts_DLE = _by_domain(counts_NLE, [one.domain for one in documents])
    share_DLE = counts_DLE / counts_DLE.sum(2, keepdims=True)
    return dict(zip(names, share_DLE.tolist(), strict=True))


def routing_shares(model: Decoder, encoder: Encoder, documents: Sequence[Document]) -> dict[str, list[list[float]]]:
    """`shares` of `document_counts`: for who needs no permutations. Raises UserError as both do."""
    return shares(document_counts(model, encoder, documents), documents)


def mutual_information(counts_DE: np.ndarray) -> float:
    """Bits between domain and expert, each domain of equal weight; [D, E] counts or shares, every row of a sum above 0."""
    return float(_information(np.asarray(counts_DE, np.float64)[:, None])[0])


def _information(counts_DLE: np.ndarray) -> np.ndarray:
    """float64 [L]: bits of each layer."""
    p_DLE = counts_DLE / counts_DLE.sum(2, keepdims=True)
    mean_LE = p_DLE.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 log 0 is 0
        terms_DLE = np.where(p_DLE > 0, p_DLE * np.log2(p_DLE / mean_LE), 0.0)
    return np.maximum(0.0, terms_DLE.sum((0, 2)) / len(counts_DLE))


def against_shuffled(
    counts_NLE: np.ndarray, documents: Sequence[Document], permutations: int = PERMUTATIONS, seed: int = 0
) -> dict[str, Any]:
    """Information of each layer and of their mean, beside what it is when domains are shuffled over clusters.

    Returns {"domains": [names], "units": U, "permutations": P, "mean": FOUND, "layers": [FOUND, ...]}; a FOUND has "bits",
    "shuffled_mean", "shuffled_95" (the least of the P values that 95 % of them do not pass) and "p". Raises UserError on a domain
    without a token, fewer than two domains, or no permutation.
    """
    if permutations < 1:
        raise UserError(f"{permutations} permutations: ask for at least 1")
    units: dict[tuple[str, str], np.ndarray] = {}
    for one, counts_LE in zip(documents, counts_NLE, strict=True):
        key = (one.domain, one.cluster)
        units[key] = units[key] + counts_LE if key in units else counts_LE
    labels = sorted(units)
    names = sorted({domain for domain, _ in labels})
    if len(names) < 2:
        raise UserError(f"{len(names)} domains: information about the domain needs at least two")
    _by_domain(counts_NLE, [one.domain for one in documents])  # refuses a domain without a token
    labels = [label for label in labels if units[label].sum()]  # a unit without a token could be all that a shuffled domain has
    counts_ULE = np.stack([units[label] for label in labels])
    place_U = np.array([names.index(domain) for domain, _ in labels])
    seen_L = _information(_gather(counts_ULE, place_U, len(names)))
    shuffled_PL = np.empty((permutations, len(seen_L)))
    for number in range(permutations):
        order_U = np.array(_permutation(labels, seed, number))
        shuffled_PL[number] = _information(_gather(counts_ULE[order_U], place_U, len(names)))
    layers = [_found(float(bits), shuffled_PL[:, layer]) for layer, bits in enumerate(seen_L)]
    mean = _found(float(seen_L.mean()), shuffled_PL.mean(1))
    return {"domains": names, "units": len(labels), "permutations": permutations, "mean": mean, "layers": layers}


def _found(bits: float, shuffled_P: np.ndarray) -> dict[str, float]:
    reached = int((shuffled_P >= bits - _TIE).sum())
    return {
        "bits": bits,
        "shuffled_mean": float(shuffled_P.mean()),
        "shuffled_95": float(np.quantile(shuffled_P, 0.95, method="inverted_cdf")),
        "p": (1 + reached) / (1 + len(shuffled_P)),
    }


def _permutation(labels: Sequence[tuple[str, str]], seed: int, number: int) -> list[int]:
    """Places of the labels in the order of their hashes: a permutation of its own for every (seed, number)."""

    def key(place: int) -> bytes:
        return hashlib.blake2b("\0".join((str(seed), str(number), *labels[place])).encode(), digest_size=16).digest()

    return sorted(range(len(labels)), key=key)


def _gather(counts_ULE: np.ndarray, place_U: np.ndarray, domains: int) -> np.ndarray:
    """float64 [D, L, E]: sums over each domain's units. Whole numbers below 2^53: exact in any order."""
    member_DU = (np.arange(domains)[:, None] == place_U).astype(np.float64)
    return (member_DU @ counts_ULE.reshape(len(place_U), -1).astype(np.float64)).reshape(domains, *counts_ULE.shape[1:])


def _by_domain(counts_NLE: np.ndarray, domains: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """(names, float64 [D, L, E])."""
    names = sorted(set(domains))
    counts_DLE = _gather(counts_NLE, np.array([names.index(domain) for domain in domains]), len(names))
    empty = [name for name, counts_LE in zip(names, counts_DLE, strict=True) if not counts_LE.sum()]
    if empty:
        raise UserError(f"domain {empty[0]}: none of its documents has a token; leave it out")
    return names, counts_DLE
