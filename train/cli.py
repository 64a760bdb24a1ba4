"""`winnow train`: the trainer's commands. Thin; torch is imported inside them."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipelines.errors import UserError
from train.scaling.command import app as scaling_app

if TYPE_CHECKING:
    from train.run_config import Settings

app = typer.Typer(no_args_is_help=True, help="Sparse and dense language models on the shards.")
app.add_typer(scaling_app, name="scaling")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback()
def _group() -> None:
    """A group of commands even while it holds one."""


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UserError("torch is not installed: pip install 'winnow[train]'")


@app.command()
def presets(as_json: AsJson = False) -> None:
    """The published models: parameters beside the papers', FLOPs a token, bytes, and the fewest devices."""
    _need_torch()
    from train import tables
    from train.presets import PRESETS

    rows = [tables.facts(preset) for preset in PRESETS.values()]
    print(json.dumps(tables.to_json(rows), indent=1) if as_json else tables.to_text(rows))


@app.command()
def run(
    settings: Annotated[str, typer.Argument(metavar="PRESET|FILE.yaml", help="What to train: a preset's name, or settings.")],
    folder: Annotated[str, typer.Option("--run", metavar="DIR", help="The run's folder; one that is there is gone on with.")],
    data: Annotated[str | None, typer.Option(metavar="DIR", help="tokens/VARIANT of a winnow run, a blend, or a shard.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one setting.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a model, or go on with a run.

    On several processes: PYTHONSAFEPATH=1 torchrun --nproc-per-node N -m -- pipelines.cli train run ...
    """
    _need_torch()
    from train.run_file import load

    _train(load(settings, _overrides(data, overrides)), settings, folder, as_json)


@app.command()
def distill(
    teacher: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="checkpoints/step-... of a run with a sparse model.")],
    folder: Annotated[str, typer.Option("--run", metavar="DIR", help="The student's; one that is there is gone on with.")],
    data: Annotated[str | None, typer.Option(metavar="DIR", help="As of run; by default what the teacher was trained on.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one setting.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a dense student of a sparse model, by the settings of its run, or go on with it."""
    _need_torch()
    from train.distill import settings_of_student

    _train(settings_of_student(teacher, _overrides(data, overrides)), teacher, folder, as_json)


def _overrides(data: str | None, others: list[str] | None) -> list[str]:
    return [*([f"data.path={json.dumps(data)}"] if data is not None else []), *(others or ())]


def _train(settings: Settings, name: str, folder: str, as_json: bool) -> None:
    from train import report
    from train import run as runs
    from train.child import STOPPED

    stream = sys.stderr if as_json else sys.stdout
    try:
        summary = runs.train(settings, name, Path(folder), report.teller(stream))
    except runs.Stopped:
        print(f"{folder}: stopped as asked; the same command goes on where it stands", file=sys.stderr)
        sys.exit(STOPPED)
    _print(summary, as_json)


Tokenizer = Annotated[str | None, typer.Option(metavar="FILE", help="tokenizer.json; by default the checkpoint's own.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where the model runs; auto: on a GPU where there is one.")]


def _chosen(device: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("--device cuda: torch finds no GPU on this machine; take cpu, or leave it out")
    return ("cuda" if available else "cpu") if device == "auto" else device


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="checkpoints/step-... of a run.")],
    out: Annotated[str, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    tokenizer: Tokenizer = None,
    as_json: AsJson = False,
) -> None:
    """Write a LLaMA model as Hugging Face's LlamaForCausalLM, with its tokenizer."""
    _need_torch()
    from train.export import export_checkpoint

    _print_written(export_checkpoint(checkpoint, out, tokenizer), as_json)


@app.command(name="import")
def import_(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A LlamaForCausalLM as Hugging Face saves it.")],
    out: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A folder that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Read a LlamaForCausalLM back as a checkpoint."""
    _need_torch()
    from train.export import import_checkpoint

    _print_written(import_checkpoint(folder, out), as_json)


def _print_written(written: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(written), indent=1))
        return
    print(f"{written.folder}: {written.parameters:,} parameters in {written.dtype}")
    if written.no_tokenizer:
        print(f"no tokenizer: {written.no_tokenizer}")


@app.command()
def sample(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="checkpoints/step-... of a run.")],
    prompts: Annotated[list[str] | None, typer.Option("--prompt", help="What to go on from; may stand several times.")] = None,
    tokenizer: Tokenizer = None,
    samples: Annotated[int, typer.Option(min=1, help="Continuations a prompt.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1)] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the most probable token.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Draw from the fewest tokens with this probability.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Continue prompts with a model, by a cache of keys and values."""
    _need_torch()
    import torch

    from train import sample as sampling

    torch.set_num_threads(1)
    drawing = sampling.Drawing(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    found = sampling.sample(checkpoint, prompts or [""], drawing, tokenizer, samples, _chosen(device))
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1))
        return
    for one in found:
        print(f"{one.prompt}{one.text}\n[{one.finish}]\n")


@app.command()
def evaluate(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="checkpoints/step-... of a run.")],
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE.jsonl", help="Documents, with `text`.")] = None,
    data: Annotated[str | None, typer.Option(metavar="DIR", help="tokens/VARIANT: its validation documents by source.")] = None,
    tokenizer: Tokenizer = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Bits per byte of documents, by domain: a file's name, or a source."""
    _need_torch()
    from train import evaluate as evaluation
    from train.corpus import open_corpus

    names = [path.name for path in files or ()]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise UserError(f"{min(repeated)}: two files of this name; a document goes by its file's name and line")
    if not names and data is None:
        raise UserError("nothing to evaluate: give files of JSON lines, or --data")
    model, encoder = evaluation.load(checkpoint, tokenizer, _chosen(device))
    documents = [document for path in files or () for document in evaluation.read_documents(str(path), encoder)]
    if data is not None:
        documents += evaluation.shard_documents(open_corpus(data), encoder)
    rows = evaluation.document_losses(model, encoder, documents)
    found = evaluation.bits_per_byte(rows)
    if as_json:
        print(json.dumps({"domains": found, "documents": [asdict(row) for row in rows]}, indent=1))
        return
    for domain, facts in found.items():
        plural = "" if facts["documents"] == 1 else "s"
        size = f"{facts['documents']:,} document{plural}, {facts['bytes']:,} bytes"
        print(f"{domain}: {facts['bits_per_byte']:.4f} bits per byte over {size}")


@app.command()
def tasks(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="checkpoints/step-... of a run.")],
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The tasks' files.")],
    names: Annotated[list[str] | None, typer.Option("--task", help="One task; may stand several times. Default: all.")] = None,
    shots: Annotated[int, typer.Option(min=0, help="Examples before each question.")] = 0,
    most: Annotated[int | None, typer.Option(min=1, help="Items of a task, in the order of their hash.")] = None,
    tokenizer: Tokenizer = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Multiple choice by likelihood: accuracy, chance, and the margin of the right answer in bits."""
    _need_torch()
    from train import evaluate as evaluation
    from train import tasks as likelihood

    model, encoder = evaluation.load(checkpoint, tokenizer, _chosen(device))
    chosen = names or likelihood.TASKS
    scores = [score for name in chosen for score in likelihood.run_task(model, encoder, folder, name, shots, most)[0]]
    if as_json:
        print(json.dumps([asdict(score) for score in scores], indent=1))
        return
    for score in scores:
        chance = "" if score.chance is None else f", chance {score.chance:.3f}"
        margin = "" if score.margin is None else f", margin {score.margin:+.2f} bits"
        print(f"{score.task}: accuracy {score.acc:.3f}{chance}{margin} over {score.items:,} items ({score.cut} cut)")


@app.command(name="lm-eval")
def lm_eval(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="checkpoints/step-... of a run.")],
    names: Annotated[list[str], typer.Option("--task", help="One task of the folder; may stand several times.")],
    include: Annotated[str, typer.Option(metavar="DIR", help="Tasks as lm-eval's YAML files, their data on this machine.")],
    shots: Annotated[int | None, typer.Option(min=0, help="Examples before each question. Default: what the task says.")] = None,
    tokenizer: Tokenizer = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Tasks of EleutherAI's lm-eval, without network. Needs the extra lm-eval."""
    _need_torch()
    where = _chosen(device)
    from train import lm_eval as adapter

    found = adapter.run(checkpoint, names, include, shots, tokenizer, where)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for name, figures in found.items():
        told = (f"{key.partition(',')[0]} {value:.4f}" for key, value in figures.items() if "," in key and isinstance(value, float))
        print(f"{name}: {', '.join(told)} over {figures['items']:,} items, {figures['n_shot']} examples")


def _print(summary: dict[str, Any] | None, as_json: bool) -> None:
    if summary is None:  # not the main process
        return
    from train import report

    print(json.dumps(summary, indent=1) if as_json else report.summary_text(summary))
