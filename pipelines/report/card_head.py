"""The YAML head of a dataset card: what Hugging Face's hub shows of a corpus, and what its library `datasets` loads of the folder.

Without `configs` the library would take whatever looks like data, sidecars too. A folder whose card is named README.md loads with
`datasets.load_dataset(folder)`: a run gives its documents, or as `decisions-<variant>` the verdicts, row for row; an export its
splits. An export states its columns too: of JSON lines that hold only nulls the library could not tell the type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import yaml

from pipelines.report.stated import hub_licenses, languages, size_category

Stats = Mapping[str, Any]
_DTYPES = {pa.float32(): "float32"}  # the library's names of types are Arrow's, but for this one


def run_head(stats: Stats) -> str:
    """The head of a run's card, from the content of stats.json."""
    kept = [sum(one["kept"] for one in stats["accounts"]["variants"][variant].values()) for variant in stats["variants"]]
    tables = {"documents": "documents", **{f"decisions-{variant}": f"decisions/{variant}" for variant in stats["variants"]}}
    configs: list[dict[str, Any]] = [{"config_name": one, "data_files": f"{path}/*/*.parquet"} for one, path in tables.items()]
    configs[0]["default"] = True
    return _head(stats, stats["name"], max(kept), {"configs": configs} if any(stats["sources"].values()) else {})


def export_head(stats: Stats, name: str, documents: int, data_files: Mapping[str, str], columns: pa.Schema) -> str:
    """The head of an export's card. stats: of what was exported; data_files: split -> the pattern of its files, if it has any."""
    files = [{"split": split, "path": path} for split, path in data_files.items()]
    features = [{"name": field.name, "dtype": _DTYPES.get(field.type, str(field.type))} for field in columns]
    loading = {"configs": [{"config_name": "default", "data_files": files}], "dataset_info": {"features": features}}
    return _head(stats, name, documents, loading if files else {})


def _head(stats: Stats, name: str, documents: int, loading: Mapping[str, Any]) -> str:
    """YAML, so that a language called `no` stays one."""
    values = {
        "pretty_name": name,
        "language": languages(stats),
        "license": hub_licenses(stats),
        "size_categories": [size_category(documents)],
        "task_categories": ["text-generation"],
        **loading,
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"
