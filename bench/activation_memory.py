"""Peak memory of a training step by form of activation checkpointing: `python bench/activation_memory.py [--layers 8] ...`.

One process each: `none`, LLaMA's `selective` (what is costly to compute again is kept), `full`. The model is LLaMA's block of
the given size, in bfloat16 with AdamW, on random tokens; printed are the process's highest resident memory, what `train.memory`
counts for the activations alone, and seconds of the second step.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

FORMS = ("none", "selective", "full")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--form", choices=FORMS, help="one form, in this process")
    chosen = parser.parse_args()
    if chosen.form:
        measure(chosen)
        return
    for form in FORMS:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--form", form], check=True)


def measure(chosen: argparse.Namespace) -> None:
    from pipelines.shards import ShardWriter
    from train import memory, presets, run
    from train.run_config import Settings

    width = chosen.width
    model = {"n_layers": chosen.layers, "d_model": width, "d_ff": width * 43 // 16, "n_heads": 4, "d_head": width // 4}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        random = np.random.default_rng(0)
        with open(folder / "x.bin", "wb") as stream:
            writer = ShardWriter(stream, np.dtype("<u2"), 511)
            writer.append(random.integers(0, 511, 400 * 500), np.arange(0, 400 * 500 + 1, 500))
        (folder / "x.idx").write_bytes(writer.index())
        tree = {"preset": "llama-tiny", "steps": 2, "batch": chosen.batch, "context": chosen.context, "checkpointing": chosen.form}
        tree |= {"model": model, "data": {"path": str(folder / "x"), "vocab_size": 512, "epochs": 99.0}}
        lines: list[dict] = []
        run.train(Settings.of(tree, "bench"), "bench", folder / "run", lines.append)
    step = [line for line in lines if line["event"] == "step"][-1]
    config = dataclasses.replace(presets.get("llama-tiny", 512, chosen.context), **model)
    counted = chosen.batch * memory.activation_bytes(config, chosen.context, chosen.form)
    facts = {"peak_mb": step["peak_memory_bytes"] / 1e6, "counted_activations_mb": counted / 1e6, "seconds": step["seconds"]}
    print(json.dumps({"checkpointing": chosen.form, **{key: round(value, 2) for key, value in facts.items()}}))


if __name__ == "__main__":
    main()
