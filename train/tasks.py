"""Tasks by likelihood over local files: which of a few texts does a model find likelier, with none, one or more examples before it.

Files are those of MosaicML's llm-foundry (one JSON object a line) and of CrowS-Pairs (CSV), read as they were published:

| task                                 | context                               | choices                   | gold            |
|--------------------------------------|---------------------------------------|---------------------------|-----------------|
| arc_easy, arc_challenge, boolq       | query, "\\nAnswer:"                    | choices                   | gold            |
| piqa                                 | query (ends in a newline), "Answer:"  | choices                   | gold            |
| copa, openbook_qa, winogender_*      | query                                 | choices                   | gold            |
| winogrande                           | one of two context_options            | the same continuation     | gold            |
| lambada_openai                       | context                               | the continuation alone    | it              |
| crows_pairs                          | nothing                               | sent_more, sent_less      | sent_more       |

* A choice is what follows the context and one space. Its bits are those of its tokens given the context, which begins with the
  end-of-document token as every document does; a context that fills the model's window loses its beginning (`cut` counts them).
* **acc**: the share of items whose gold has the fewest bits. **acc_norm**: the fewest bits a byte of the choice (lm-eval's rule;
  its acc_norm counts characters, its acc_bytes bytes). Choices that tie for first share the point, so that a model that knows
  nothing scores chance. **chance**: the mean of 1 / choices. **margin**: bits of the best distractor less those of gold, the mean.
* LAMBADA has no distractors: its acc is the share of items whose every token is the likeliest, its chance and margin are null.
* WinoGender is told by pronoun. CrowS-Pairs is told by its nine categories too; its acc is the share of pairs whose
  stereotyped sentence is the likelier, and half is no preference (Nangia et al. 2020; whole sentences, as lm-eval does).
* **Examples** stand before the context, gold choice and all, with an empty line behind each (GPT-3, Brown et al. 2020, section 2).
  The items of a task stand in a ring in the order of hashes of their content; an item's examples are those that follow it. So they
  depend neither on the file's order nor on how many items are scored, and none is the item itself. CrowS-Pairs takes none.

Only CPUs were tested.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import UserError
from train.evaluate import Encoder, check_vocabulary, read_records, score
from train.model import Decoder

_SEPARATOR = "\n\n"


@dataclass(frozen=True, slots=True)
class Item:
    """One question: choice k follows contexts[k] and a space, or begins the text where that is empty. `group`: a category."""

    contexts: tuple[str, ...]
    choices: tuple[str, ...]
    gold: int
    group: str | None = None

    @property
    def key(self) -> bytes:
        """A hash of the content: the item's place in its task's ring."""
        content = json.dumps([self.contexts, self.choices, self.gold, self.group])
        return hashlib.blake2b(content.encode(), digest_size=16).digest()

    @property
    def answered(self) -> str:
        """The item with its gold choice, as it stands as an example."""
        return _joined(self.contexts[self.gold], self.choices[self.gold])


@dataclass(frozen=True, slots=True)
class Task:
    """A file and how a record of it becomes an item."""

    file: str
    item: Callable[[dict[str, Any]], Item]
    shots: bool = True


@dataclass(frozen=True, slots=True)
class ItemScore:
    """Bits of an item's choices (in the file's order), their UTF-8 bytes, whether all tokens of gold were the likeliest."""

    task: str
    number: int  # place in the file, from 0
    group: str | None
    gold: int
    bits: tuple[float, ...]
    bytes: tuple[int, ...]
    greedy: bool
    cut: bool

    @property
    def outcome(self) -> float:
        """What it adds to accuracy: 1 where gold is the likeliest, a share where others are as likely; of one choice, greedy."""
        return float(self.greedy) if len(self.bits) == 1 else _point(self.bits, self.gold)


@dataclass(frozen=True, slots=True)
class TaskScore:
    """A task's figures (see the head of this file); gold_bits is the mean of gold's."""

    task: str
    shots: int
    items: int
    acc: float
    acc_norm: float | None
    chance: float | None
    margin: float | None
    gold_bits: float
    cut: int


# -- formats ------------------------------------------------------------------------------------------------------------------


def _query(behind: str) -> Callable[[dict[str, Any]], Item]:
    def item(record: dict[str, Any]) -> Item:
        choices = tuple(_text(one) for one in _list(record["choices"]))
        return Item((_text(record["query"]) + behind,) * len(choices), choices, _index(record["gold"], choices))

    return item


def _winogrande(record: dict[str, Any]) -> Item:
    contexts = tuple(_text(one) for one in _list(record["context_options"]))
    return Item(contexts, (_text(record["continuation"]),) * len(contexts), _index(record["gold"], contexts))


def _lambada(record: dict[str, Any]) -> Item:
    return Item((_text(record["context"]),), (_text(record["continuation"]),), 0)


def _crows_pairs(record: dict[str, Any]) -> Item:
    return Item(("", ""), (_text(record["sent_more"]), _text(record["sent_less"])), 0, _text(record["bias_type"]))


TASKS = {
    "lambada_openai": Task("lambada_openai.jsonl", _lambada),
    "arc_easy": Task("arc_easy.jsonl", _query("\nAnswer:")),
    "arc_challenge": Task("arc_challenge.jsonl", _query("\nAnswer:")),
    "piqa": Task("piqa.jsonl", _query("Answer:")),
    "winogrande": Task("winogrande.jsonl", _winogrande),
    "copa": Task("copa.jsonl", _query("")),
    "openbook_qa": Task("openbook_qa.jsonl", _query("")),
    "boolq": Task("boolq.jsonl", _query("\nAnswer:")),
    "winogender_female": Task("winogender_mc_female.jsonl", _query("")),
    "winogender_male": Task("winogender_mc_male.jsonl", _query("")),
    "crows_pairs": Task("crows_pairs_anonymized.csv", _crows_pairs, shots=False),
}


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r:.40} is no text")
    value.encode()
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) < 2:
        raise ValueError(f"{value!r:.40} is no list of two or more")
    return value


def _index(value: Any, of: Sequence[str]) -> int:
    if type(value) is not int or not 0 <= value < len(of):
        raise ValueError(f"gold {value!r:.40} is none of the choices 0 to {len(of) - 1}")
    return value


def read_items(folder: str, name: str) -> list[Item]:
    """All items of a task, in the file's order. Raises UserError on an unknown task, or a file that is not as the table says."""
    if name not in TASKS:
        raise UserError(f"{name}: no such task; there are {', '.join(TASKS)}")
    task, path = TASKS[name], str(Path(folder, TASKS[name].file))
    items = []
    for number, record in _read_csv(path) if path.endswith(".csv") else read_records(path):
        try:
            items.append(task.item(record))
        except KeyError as error:
            raise UserError(f"{path}: record {number} has no {error.args[0]!r}: not the file of the task {name}") from error
        except ValueError as error:
            raise UserError(f"{path}: record {number}: {error}; not the file of the task {name}") from error
    if not items:
        raise UserError(f"{path}: no items in it; copy the file of the task {name} again")
    return items


def _read_csv(path: str) -> list[tuple[int, dict[str, Any]]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return list(enumerate(csv.DictReader(file)))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); give the folder of the task files") from error


# -- scores -------------------------------------------------------------------------------------------------------------------


def run_task(
    model: Decoder, encoder: Encoder, folder: str, name: str, shots: int = 0, most: int | None = None
) -> tuple[list[TaskScore], list[ItemScore]]:
    """A task's figures, then those of its categories ("task/category"), and what they are made of, in the file's order.

    folder: where the files are. shots: examples before each item. most: score only so many items, the first by hash. Raises
    UserError on bad files, on more examples than there are other items, and where the tokenizer is not the model's.
    """
    check_vocabulary(model, encoder)
    items = read_items(folder, name)
    shots = shots if TASKS[name].shots else 0
    scores = score_items(model, encoder, name, items, shots, most)
    told = [summary(name, shots, scores)]
    for group in sorted({one.group for one in scores if one.group is not None}):
        told.append(summary(f"{name}/{group}", shots, [one for one in scores if one.group == group]))
    return told, scores


def examples(items: Sequence[Item], shots: int) -> tuple[list[int], dict[bytes, tuple[Item, ...]]]:
    """(places of the items in the order of hashes, {an item's key: the `shots` distinct items that follow it in the ring}).

    Raises UserError where there are not as many others.
    """
    order = sorted(range(len(items)), key=lambda place: (items[place].key, place))
    ring = list({items[place].key: items[place] for place in order}.items())  # equal items stand in it once
    if not 0 <= shots < len(ring):
        raise UserError(f"{shots} examples: there are {len(ring) - 1} other items; ask for 0 to {len(ring) - 1}")
    follow = {key: tuple(ring[(at + step) % len(ring)][1] for step in range(1, shots + 1)) for at, (key, _) in enumerate(ring)}
    return order, follow


def score_items(
    model: Decoder, encoder: Encoder, name: str, items: Sequence[Item], shots: int = 0, most: int | None = None
) -> list[ItemScore]:
    """The scores of the first `most` items by hash, or of all, in the order of `items`. Raises UserError as `run_task` does."""
    if most is not None and most < 1:
        raise UserError(f"{name}: {most} items to score; ask for at least 1")
    order, follow = examples(items, shots)
    chosen, end = sorted(order[:most]), encoder.tokenizer.end_of_document
    sequences, first = [], []
    for place in chosen:
        item = items[place]
        before = "".join(one.answered + _SEPARATOR for one in follow[item.key])
        for context, choice in zip(item.contexts, item.choices, strict=True):
            read, scored = encoder(before + context), encoder(_joined(context, choice)[len(context) :])
            sequences.append(np.concatenate([[end], read, scored]))
            first.append(len(read))
    found = iter(zip(sequences, score(model, sequences, first), strict=True))
    scores = []
    for place in chosen:
        item = items[place]
        mine = [next(found) for _ in item.choices]
        scores.append(
            ItemScore(
                name,
                place,
                item.group,
                item.gold,
                tuple(scored.bits for _, scored in mine),
                tuple(len(choice.encode()) for choice in item.choices),
                mine[item.gold][1].greedy,
                any(len(ids) - 1 > model.config.context for ids, _ in mine),
            )
        )
    return scores


def summary(name: str, shots: int, scores: Sequence[ItemScore]) -> TaskScore:
    """The figures of some items, at least one."""
    count = len(scores)
    gold_bits = math.fsum(one.bits[one.gold] for one in scores) / count
    cut, acc = sum(one.cut for one in scores), math.fsum(one.outcome for one in scores) / count
    if any(len(one.bits) == 1 for one in scores):
        return TaskScore(name, shots, count, acc, None, None, None, gold_bits, cut)
    by_byte = [[bits / size for bits, size in zip(one.bits, one.bytes, strict=True)] for one in scores]
    acc_norm = math.fsum(_point(some, one.gold) for some, one in zip(by_byte, scores, strict=True)) / count
    chance = math.fsum(1 / len(one.bits) for one in scores) / count
    margin = math.fsum(_margin(one.bits, one.gold) for one in scores) / count
    return TaskScore(name, shots, count, acc, acc_norm, chance, margin, gold_bits, cut)


def _point(values: Sequence[float], gold: int) -> float:
    least = min(values)
    return 1 / sum(one == least for one in values) if values[gold] == least else 0.0


def _margin(bits: Sequence[float], gold: int) -> float:
    return min(one for place, one in enumerate(bits) if place != gold) - bits[gold]


def _joined(context: str, choice: str) -> str:
    return f"{context} {choice}" if context else choice
