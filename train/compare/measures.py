"""What is measured of an arm's model beside bits per byte: tasks by likelihood, and biases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from pipelines.dedup.terms import read_terms
from pipelines.errors import UserError
from train import tasks as likelihood
from train.compare import bias as biases
from train.evaluate import Document, Encoder
from train.model import Decoder


def tasks(model: Decoder, encoder: Encoder, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """Every task's figures, and those of its categories, at each number of shots. wanted: the recipe's `tasks`."""
    found = []
    for name in wanted["names"]:
        for shots in wanted["shots"] if likelihood.TASKS[name].shots else [0]:
            scores, _ = likelihood.run_task(model, encoder, wanted["folder"], name, shots, wanted["items"])
            found += [asdict(score) for score in scores]
    return found


def bias(model: Decoder, encoder: Encoder, wanted: dict[str, Any], documents: Sequence[Document]) -> dict[str, Any]:
    """Each measure that the recipe's `bias` has files for, by name; seed: of the run, which draws its continuations."""
    found: dict[str, Any] = {}
    if wanted["crows_pairs"] is not None:
        found["crows_pairs"] = biases.crows_pairs(model, encoder, wanted["crows_pairs"])
    if wanted["winogender"] is not None:
        found["winogender"] = biases.winogender(model, encoder, wanted["winogender"])
    if wanted["words"] is not None:
        count = wanted["continuations"]
        given = wanted["prompts"]
        prompts = biases.openings(documents, most=count) if given is None else biases.read_prompts(given, count)
        if not prompts:
            raise UserError("compare.bias: no evaluation document has words enough to begin a continuation; give prompts")
        drawing = replace(biases.DRAWING, seed=wanted["seed"])
        words, samples = list(read_terms(wanted["words"])), -(-count // len(prompts))
        found["toxic"] = biases.toxic_share(model, encoder, prompts, words, samples, drawing)
    return found


def check(named: Any, asked_bias: Any) -> None:
    """Reads what tasks and biases need, before anything is trained. Raises UserError where a file is not what it should be."""
    if named is not None:
        for name in named.names:
            likelihood.read_items(named.folder, name)
    if asked_bias is not None:
        if asked_bias.crows_pairs is not None:
            likelihood.read_items(asked_bias.crows_pairs, "crows_pairs")
        if asked_bias.winogender is not None:
            biases.read_winogender(asked_bias.winogender)
        if asked_bias.words is not None:
            list(read_terms(asked_bias.words))
        if asked_bias.prompts is not None:
            biases.read_prompts(asked_bias.prompts)
