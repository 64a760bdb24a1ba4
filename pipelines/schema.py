"""The tables of a run directory: Arrow schemas, document identity, and the closed list of reasons.

documents/, signals/, clusters/ and decisions/ have the same parts with the same rows in the same order, so that joining
them is reading them side by side. Every name that a user can meet in a table or a report stands in this file.

    source   a name from the recipe            locator   <path below the source's root>#<0-based record number>
    doc_id   16 bytes, hash of the two         reason    why a record or a document is not in the shards
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import pyarrow as pa

# -- tables -------------------------------------------------------------------------------------------------------------

DOCUMENTS = pa.schema(
    [
        pa.field("doc_id", pa.binary(16), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("locator", pa.string(), nullable=False),
        pa.field("source_id", pa.string()),  # the record's own id, where it has one
        pa.field("url", pa.string()),
        pa.field("title", pa.string()),
        pa.field("date", pa.string()),
        pa.field("license", pa.string()),
        pa.field("text", pa.large_string(), nullable=False),  # normalised
        pa.field("content_hash", pa.binary(16), nullable=False),  # blake2b-128 of the normalised text
        pa.field("paragraph_hashes", pa.list_(pa.uint64())),  # null unless the source deduplicates paragraphs
        pa.field("paragraph_bytes", pa.list_(pa.int32())),  # UTF-8 bytes of each paragraph, its newline not counted
        pa.field("signature", pa.binary()),  # uint32 little-endian minima; null where the text has no word
    ]
)

REJECTS = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("locator", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
        pa.field("count", pa.int64(), nullable=False),  # records that this row stands for
        pa.field("unknown_rest", pa.bool_(), nullable=False),  # an unreadable tail may hide more records
    ]
)

CLUSTERS = pa.schema(
    [
        pa.field("exact_cluster", pa.binary(16)),  # doc_id of the smallest member; null where the document is alone
        pa.field("exact_size", pa.int32()),  # members of that cluster
        pa.field("near_cluster", pa.binary(16)),  # likewise
        pa.field("near_size", pa.int32()),
        pa.field("jaccard", pa.float32()),  # estimated similarity to the near cluster's smallest member
        pa.field("dropped_paragraphs", pa.list_(pa.int32())),  # paragraphs whose one kept copy stands elsewhere
    ]
)

DECISIONS = pa.schema(
    [
        pa.field("verdict", pa.string(), nullable=False),  # "keep" or a Reason
        pa.field("stage", pa.string()),  # the step of judgement that spoke; null for keep
        pa.field("value", pa.float64()),  # the number that was judged
        pa.field("threshold", pa.float64()),  # what it was held against
        pa.field("duplicate_of", pa.binary(16)),  # the keeper, for duplicates
        pa.field("duplicate_run", pa.string()),  # the run that has the keeper; null where it is this one
        pa.field("split", pa.string(), nullable=False),  # "train" or "validation", for every row
    ]
)

KEEP = "keep"
TRAIN, VALIDATION = "train", "validation"


class Stage(StrEnum):
    """The steps of judgement, in the order in which a verdict names its first reason."""

    REMOVAL = "removal"
    LANGUAGE = "language"
    RULES = "rules"
    DECONTAMINATION = "decontamination"
    EXACT = "exact"
    NEAR = "near"
    QUALITY = "quality"
    PARAGRAPHS = "paragraphs"
    MIXTURE = "mixture"


class Reason(StrEnum):
    """Why a document is not in a variant; with the names of `quality.rules` this is the closed list of verdicts."""

    REMOVED = "removed"  # named by the recipe's `remove` list
    LANGUAGE = "language"  # another language than those that are kept
    LANGUAGE_SCORE = "language_score"  # a kept language, but not surely
    PERPLEXITY = "perplexity"  # of the middle or the tail of its language
    CONTAMINATED = "contaminated"  # shares an n-gram with an evaluation set
    DUPLICATE_EXACT = "duplicate_exact"
    DUPLICATE_NEAR = "duplicate_near"
    QUALITY_DRAW = "quality_draw"  # lost GLaM's Pareto draw
    QUALITY_CUT = "quality_cut"  # below the threshold
    TOO_SHORT = "too_short"  # paragraph dedup left less than the policy's min_bytes
    MIXTURE = "mixture"  # the mixture wants less of its source than there is


_STAGE_OF: dict[str, Stage] = {
    Reason.REMOVED: Stage.REMOVAL,
    Reason.LANGUAGE: Stage.LANGUAGE,
    Reason.LANGUAGE_SCORE: Stage.LANGUAGE,
    Reason.PERPLEXITY: Stage.RULES,
    Reason.CONTAMINATED: Stage.DECONTAMINATION,
    Reason.DUPLICATE_EXACT: Stage.EXACT,
    Reason.DUPLICATE_NEAR: Stage.NEAR,
    Reason.QUALITY_DRAW: Stage.QUALITY,
    Reason.QUALITY_CUT: Stage.QUALITY,
    Reason.TOO_SHORT: Stage.PARAGRAPHS,
    Reason.MIXTURE: Stage.MIXTURE,
}


def stage_of(reason: str) -> Stage:
    """The step of judgement that a verdict's reason belongs to: rules, where it is none of `Reason`."""
    return _STAGE_OF.get(reason, Stage.RULES)


class RejectReason(StrEnum):
    """Why a record never became a document."""

    MALFORMED_JSON = "malformed_json"  # a line that is no JSON object (also NaN, lone surrogates, too deep)
    MISSING_TEXT = "missing_text"  # no text field, or null
    TEXT_NOT_STRING = "text_not_string"
    INVALID_UTF8 = "invalid_utf8"
    TOO_LARGE = "too_large"  # over the recipe's limit for one record
    TRUNCATED_RECORD = "truncated_record"  # shorter than its own header promises
    CORRUPT_CONTAINER = "corrupt_container"  # the rest of the file cannot be read
    MALFORMED_RECORD = "malformed_record"  # a container's record without its required parts
    NOT_A_RESPONSE = "not_a_response"  # WARC: request, metadata, warcinfo, revisit, ...
    HTTP_STATUS = "http_status"  # WARC: a response other than 200
    NOT_TEXT = "not_text"  # WARC: a media type without text
    BLOCKED_URL = "blocked_url"  # the source's block list names the URL's host or path
    TOO_DEEP = "too_deep"  # HTML nested beyond what can be parsed in linear time
    NOT_AN_ARTICLE = "not_an_article"  # wiki: another namespace
    REDIRECT = "redirect"  # wiki: a page that only points to another
    UNSAFE_PATH = "unsafe_path"  # archives: a link, a device, or a path that leads out
    NOT_CODE = "not_code"  # code: no known language by name, or no text
    LICENSE_UNKNOWN = "license_unknown"  # code: none is stated, or none that can be told
    LICENSE_NOT_PERMITTED = "license_not_permitted"  # code: told, and not one of those that are taken
    NO_LATEX = "no_latex"  # arXiv: a submission without LaTeX source
    NOT_A_POST = "not_a_post"  # StackExchange: neither question nor answer
    ORPHAN_ANSWER = "orphan_answer"  # StackExchange: its question is not in the dump


# -- identity -----------------------------------------------------------------------------------------------------------


def doc_id(source: str, locator: str) -> bytes:
    """16 bytes that name a document: blake2b of source and locator, so ids survive a move of the inputs."""
    return hashlib.blake2b(f"{source}\0{locator}".encode(), digest_size=16).digest()


def content_hash(text: bytes | memoryview) -> bytes:
    """16 bytes that name a normalised text (UTF-8): blake2b, so that nobody can craft a page that drops another."""
    return hashlib.blake2b(text, digest_size=16).digest()
