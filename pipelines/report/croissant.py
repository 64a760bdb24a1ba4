"""croissant.json: the files of a run for programs, in MLCommons' Croissant 1.0 (JSON-LD over schema.org).

    distribution   every documents and decisions part, every token shard, blends and tokenizer, with bytes and sha256 as the
                   manifest states them; and as sets, by patterns, the parts of the tables and the shards of a variant and split
    record sets    `documents`, and `decisions/<variant>`: same parts, same rows, same order, so that row i of one is about row i
                   of the other

Paths are relative to the file itself, the context is written out: nothing is fetched to read it. Croissant 1.0 has no type for
bytes: `sc:Text` stands for them, and the field says how many they are. Left out, since only a publisher knows them: `url`,
`creator`, `datePublished`, `citeAs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.report.stated import languages, licenses
from pipelines.schema import DECISIONS, DOCUMENTS, TRAIN, VALIDATION

_PARQUET, _BYTES, _JSON = "application/x-parquet", "application/octet-stream", "application/json"
_FORMATS = {"parquet": _PARQUET, "bin": _BYTES, "idx": _BYTES, "json": _JSON}

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in """citeAs column equivalentProperty extract field fileProperty fileObject fileSet format includes isLiveDataset
        jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source subField
        transform""".split()
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "sc": "https://schema.org/",
}

# What a column holds, where its name does not say it.
_TOLD = {
    "doc_id": "16 bytes, blake2b of source and locator",
    "locator": "path below the source's root, and the record's number",
    "source_id": "the record's own id",
    "license": "as the record states it, or the recipe for its source",
    "content_hash": "16 bytes, blake2b of the text",
    "paragraph_hashes": "of a source whose paragraphs are deduplicated",
    "paragraph_bytes": "UTF-8 bytes of each paragraph",
    "signature": "MinHash, little-endian uint32; null for a text without a word",
    "verdict": "keep, or the first reason against it",
    "stage": "the step of judgement that spoke",
    "value": "the number that was judged",
    "threshold": "what it was held against",
    "duplicate_of": "16 bytes, doc_id of the document that stays",
    "duplicate_run": "the run that has this document, where it is another one",
    "split": "train or validation",
}


def croissant(stats: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The description, from the content of stats.json and the manifest's files (path -> bytes, sha256)."""
    variants, sources = stats["variants"], [source for source, one in stats["sources"].items() if one]
    distribution = [_file(path, files[path]) for path in sorted(files) if _is_data(path)]
    distribution.append(_set("documents", [f"documents/{source}/*.parquet" for source in sources], _PARQUET))
    records = [_records("documents", DOCUMENTS, "Every document that was read, whatever a variant makes of it.")]
    for variant in variants:
        name = f"decisions/{variant}"
        distribution.append(_set(name, [f"{name}/{source}/*.parquet" for source in sources], _PARQUET))
        told = f"What the variant {variant} makes of every document: row for row as in documents."
        records.append(_records(name, DECISIONS, told))
        for split in (TRAIN, VALIDATION):
            shards = f"tokens/{variant}/{split}"
            distribution.append(_set(shards, [f"{shards}/*.bin", f"{shards}/*.idx"], _BYTES))
    documents = sum(one["documents"] for one in stats["accounts"]["sources"].values())
    found = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": stats["name"],
        "description": (
            f"A text corpus of {documents:,} documents from {len(stats['sources']):,} sources, built by winnow in {len(variants):,}"
            " variants. The token shards are Megatron's MMIDIDX, version 1. card.md beside this file says more."
        ),
        "inLanguage": languages(stats),
        "license": [f"https://spdx.org/licenses/{name}.html" for name in licenses(stats)],
        "distribution": distribution,
        # Without a document there is no part to read records from.
        "recordSet": records if sources else [],
    }
    return {key: value for key, value in found.items() if value != []}


def _is_data(path: str) -> bool:
    folder, _, rest = path.partition("/")
    if folder in ("documents", "decisions"):
        return rest.endswith(".parquet")
    return folder == "tokens" or path == "models/tokenizer.json"


def _file(path: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{stated['bytes']} B",
        "sha256": stated["sha256"],
        "encodingFormat": _FORMATS[path.rsplit(".", 1)[1]],
    }


def _set(name: str, patterns: Sequence[str], kind: str) -> dict[str, Any]:
    return {"@type": "cr:FileSet", "@id": f"files/{name}", "name": name, "includes": list(patterns), "encodingFormat": kind}


def _records(name: str, schema: pa.Schema, description: str) -> dict[str, Any]:
    fields = [_field(name, field) for field in schema]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": description, "field": fields}


def _field(name: str, field: pa.Field) -> dict[str, Any]:
    is_list = pa.types.is_list(field.type)
    found = {
        "@type": "cr:Field",
        "@id": f"{name}/{field.name}",
        "name": field.name,
        "description": _TOLD.get(field.name, field.name),
        "dataType": _data_type(field.type.value_type if is_list else field.type),
        "source": {"fileSet": {"@id": f"files/{name}"}, "extract": {"column": field.name}},
    }
    return {**found, "repeated": True} if is_list else found


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:Text"
