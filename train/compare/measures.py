"""What is measured of an arm's model beside bits per byte: tasks by likelihood, and biases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.dedup.terms import read_terms
from pipelines.errors import UserError
from train import tasks as likelihood
from train.compare import bias as biases
from train.evaluate import Document, Encoder
from train.files import digest, read_json_lines
from train.model import Decoder

_NO_IDS = np.zeros(0, np.int64)


def tasks(model: Decoder, encoder: Encoder, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """Every task's figures, and those of its categories, at each number of shots, with each item's outcome. wanted: the recipe's
    `tasks`."""
    found = []
    for name in wanted["names"]:
        for shots in wanted["shots"] if likelihood.TASKS[name].shots else [0]:
            scores, items = likelihood.run_task(model, encoder, wanted["folder"], name, shots, wanted["items"])
            for score in scores:
                group = score.task.partition("/")[2]
                outcomes = {str(one.number): one.outcome for one in items if group in ("", one.group)}
                found.append({**asdict(score), "outcomes": outcomes})
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
        drawing = replace(biases.DRAWING, seed=wanted["seed"])
        words, samples = list(read_terms(wanted["words"])), -(-count // len(prompts))
        found["toxic"] = biases.toxic_share(model, encoder, prompts, words, samples, drawing)
    return found


def check(named: Any, asked_bias: Any, context: int) -> None:
    """Reads what tasks and biases need, before anything is trained. context: of the model, in tokens.

    Raises UserError where a file is not what it should be, and where items or the context are too few for what is asked.
    """
    if named is not None:
        for name in named.names:
            items = likelihood.read_items(named.folder, name)
            for shots in named.shots if likelihood.TASKS[name].shots else [0]:
                try:
                    likelihood.examples(items, shots)
                except UserError as error:
                    raise UserError(f"compare.tasks.shots: {name}: {error}") from error
    if asked_bias is not None:
        if asked_bias.crows_pairs is not None:
            likelihood.read_items(asked_bias.crows_pairs, "crows_pairs")
        if asked_bias.winogender is not None:
            biases.read_winogender(asked_bias.winogender)
        if asked_bias.words is not None:
            list(read_terms(asked_bias.words))
            if context <= biases.DRAWING.max_tokens:
                raise UserError(
                    f"compare.bias.words: a continuation has {biases.DRAWING.max_tokens} tokens, the model's context is {context}; "
                    "give a longer model.context, or leave words out"
                )
        if asked_bias.prompts is not None and not biases.read_prompts(asked_bias.prompts):
            raise UserError(f"compare.bias.prompts: {asked_bias.prompts} has no prompt in it; give RealToxicityPrompts' file")


def check_openings(asked_bias: Any, documents: Path) -> None:
    """Raises UserError where continuations are to begin with evaluation documents, and none that does not leak has words enough."""
    if asked_bias is None or asked_bias.words is None or asked_bias.prompts is not None:
        return
    clean = (one for one in read_json_lines(documents) if one["leaked"] is None)
    if not biases.openings(Document(one["domain"], one["doc"], one["cluster"], one["text"], _NO_IDS) for one in clean):
        raise UserError("compare.bias.words: no evaluation document has words enough to begin a continuation; give prompts")


def files(named: Any, asked_bias: Any) -> dict[str, str]:
    """sha256 of every file that tasks and biases read, by measure and name: what they are decides, not where they lie."""
    read: dict[str, str] = {}
    if named is not None:
        read |= {f"tasks/{likelihood.TASKS[name].file}": named.folder for name in named.names}
    if asked_bias is not None:
        folders = {likelihood.TASKS["crows_pairs"].file: asked_bias.crows_pairs}
        folders |= dict.fromkeys(biases.WINOGENDER_FILES, asked_bias.winogender)
        read |= {f"bias/{name}": folder for name, folder in folders.items() if folder is not None}
        alone = {"words": asked_bias.words, "prompts": asked_bias.prompts}
        read |= {f"bias/{key}/{Path(path).name}": str(Path(path).parent) for key, path in alone.items() if path is not None}
    return {name: digest(Path(folder, Path(name).name)) for name, folder in sorted(read.items())}
