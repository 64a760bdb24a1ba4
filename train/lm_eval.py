"""A checkpoint as a model of EleutherAI's lm-eval (extra `lm-eval`), and tasks of a folder run on it, without network.

* **loglikelihood** is `train.evaluate.score`: natural logarithms, whether every token was the likeliest; no other request changes a
  figure but by rounding. Context and continuation are encoded apart, as `train.tasks` does, spaces at the context's end moved to
  the continuation, as lm-eval does; before both stands the end-of-document token, as before every document. A context that fills
  the model's window loses its beginning.
* **loglikelihood_rolling** reads a long text in lm-eval's windows: none overlaps the one before but the last, which ends with the
  text. (`winnow train evaluate` overlaps by half, which gives fewer bits as a rule.)
* **generate_until** takes the likeliest tokens, or draws with do_sample, keyed by prompt and repetition (`train.sample`). A prompt
  that leaves no room for max_gen_toks loses its beginning, but for the end-of-document token; where max_gen_toks leaves room for
  nothing else the task is refused, and so is an option that is not named here.

Tasks are the YAML files of a folder; lm-eval's own are not looked at, since their data would be fetched. What a file says of where
its data lies is lm-eval's and `datasets`' business: `dataset_path: json` with `data_files` reads local ones. A task may name
Python functions in files beside it, which then run.

Only CPUs were tested.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines import bpe
from pipelines.errors import UserError
from train.evaluate import Encoder, check_vocabulary, load, score
from train.model import Decoder
from train.sample import Drawing, Reader, draw, generator_of

try:
    from lm_eval.api.model import LM  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    raise UserError(f"lm-eval is not installed (no {error.name}): pip install 'winnow[lm-eval]'") from error

_OPTIONS = frozenset({"until", "max_gen_toks", "do_sample", "temperature", "top_p"})
_MAX_TOKENS = 256  # of a task that says nothing, as lm-eval's own models


class Winnow(LM):
    """The adapter: pass it to lm_eval.simple_evaluate(model=...)."""

    def __init__(self, model: Decoder, encoder: Encoder) -> None:
        """Raises UserError where the tokenizer is not the model's."""
        super().__init__()
        check_vocabulary(model, encoder)
        self.model, self.encoder, self.end = model, encoder, encoder.tokenizer.end_of_document

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(nats of the continuation, whether it is the greedy one) of each (context, continuation)."""
        sequences, first = [], []
        for context, continuation in (request.args for request in requests):
            kept = context.rstrip()
            read, scored = self.encoder(kept), self.encoder(context[len(kept) :] + continuation)
            sequences.append(np.concatenate([[self.end], read, scored]))
            first.append(len(read))
        return [(-one.bits * math.log(2), one.greedy) for one in score(self.model, sequences, first)]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Nats of each whole text."""
        sequences = [np.concatenate([[self.end], self.encoder(request.args[0])]) for request in requests]
        return [-one.bits * math.log(2) for one in score(self.model, sequences, [0] * len(sequences), overlap=0)]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What follows each context, up to and without the first of `until`. Raises UserError on an option that is not known."""
        seen: Counter[str] = Counter()
        texts = []
        for context, options in (request.args for request in requests):
            texts.append(self._generate(context, options, seen[context]))
            seen[context] += 1
        return texts

    def _generate(self, context: str, options: dict[str, Any], number: int) -> str:
        unknown = sorted(set(options) - _OPTIONS)
        if unknown:
            raise UserError(f"generation_kwargs: {unknown[0]} is not known here; there are {', '.join(sorted(_OPTIONS))}")
        sampled = options.get("do_sample", False)
        drawing = Drawing(
            max_tokens=options.get("max_gen_toks", _MAX_TOKENS),
            temperature=options.get("temperature", 1.0) if sampled else 0.0,
            top_p=options.get("top_p", 1.0) if sampled else 1.0,
        )
        until = options.get("until") or []
        stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
        room = self.model.config.context - 1 - drawing.max_tokens  # for the prompt, behind the end-of-document token
        if room < 1:
            raise UserError(
                f"max_gen_toks {drawing.max_tokens} leaves no room for a prompt in the model's context of "
                f"{self.model.config.context}; set generation_kwargs.max_gen_toks to at most {self.model.config.context - 2}"
            )
        return self._until([self.end, *self.encoder(context).tolist()[-room:]], stops, drawing, number)

    def _until(self, ids: list[int], stops: Sequence[str], drawing: Drawing, number: int) -> str:
        """`sample.continuation` that also ends where a stop stands in the text."""
        room = min(self.model.config.context, len(ids) + drawing.max_tokens)
        reader, generator = Reader(self.model, room), generator_of(drawing.seed, number, ids)
        drawn: list[int] = []
        text, logits_V = "", reader.read(ids)
        while len(drawn) < drawing.max_tokens and len(ids) + len(drawn) < self.model.config.context:
            uniform = torch.rand((), generator=generator, dtype=torch.float64).item()
            token = draw(logits_V, drawing.temperature, drawing.top_p, uniform)
            if token == self.end:
                break
            drawn.append(token)
            text = bpe.decode(self.encoder.tokenizer, np.array(drawn, np.int64)).decode(errors="replace")
            places = [text.find(stop) for stop in stops if stop in text]
            if places:
                return text[: min(places)]
            if len(ids) + len(drawn) < room:
                logits_V = reader.read([token])
        return text


def run(
    checkpoint: str,
    names: Sequence[str],
    include: str,
    shots: int | None = None,
    tokenizer: str | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """lm-eval's figures of the tasks of a folder: {task: {"metric,filter": value, ..., "n_shot", "items"}}.

    shots: examples before each question; None is what the task says. No global random state is set or moved by it. Raises UserError
    on an unknown task, on data that cannot be read without network, and on what `evaluate.load` refuses.
    """
    from datasets.exceptions import DatasetsError
    from lm_eval import simple_evaluate  # type: ignore[import-untyped]
    from lm_eval.tasks import TaskManager  # type: ignore[import-untyped]

    if not Path(include).is_dir():
        raise UserError(f"{include}: no such folder; give one with lm-eval's YAML files of tasks")
    manager = TaskManager(include_path=include, include_defaults=False)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise UserError(f"{include}: no task {unknown[0]} in its YAML files; there are {', '.join(manager.all_tasks) or 'none'}")
    model = Winnow(*load(checkpoint, tokenizer, device))
    with _offline():
        try:
            found = simple_evaluate(
                model=model,
                tasks=list(names),
                num_fewshot=shots,
                task_manager=manager,
                log_samples=False,
                bootstrap_iters=1000,
                random_seed=None,
                numpy_random_seed=None,
                torch_random_seed=None,
            )
        except (OSError, DatasetsError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{include}: data of {', '.join(names)} cannot be read ({reason}); nothing is fetched") from error
    return {
        name: {**figures, "n_shot": found["n-shot"][name], "items": found["n-samples"][name]["effective"]}
        for name, figures in found["results"].items()
    }


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """`datasets` without network: it would count each reading at its makers', and ask the hub for a name that is no file."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before
