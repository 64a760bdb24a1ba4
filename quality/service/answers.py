"""What the service takes and says, as its OpenAPI description has it; examples are real ones, of the run of `winnow demo`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from quality.service.corpora import ID, State
from quality.service.settings import DOCUMENTS, EXPLAINED, TEXT_BYTES

_RIVER = "The river rises in the mountains and flows to the sea. It was described by the historian in the third century."
Count = Annotated[int, Field(ge=0)]
CorpusId = Annotated[str, Field(pattern=ID, examples=["demo"], description="The name of the run's folder.")]


class Answer(BaseModel):
    """An object with these members and no others."""

    model_config = ConfigDict(extra="forbid")


# -- corpora ----------------------------------------------------------------------------------------------------------------


class Kept(Answer):
    """What a variant keeps, over all sources."""

    kept: Annotated[Count, Field(description="documents")]
    tokens: Count


class Summary(Answer):
    """A corpus in a few numbers. What only a finished build knows is null until there is one, and `partial` says so."""

    id: CorpusId
    state: State
    partial: bool
    recipe: Annotated[str | None, Field(description="the recipe's name")]
    winnow: Annotated[str | None, Field(description="the version that built it")]
    built: Annotated[str | None, Field(description="when the last build ended, UTC")]
    sources: Count | None
    records: Count | None
    documents: Count | None
    variants: dict[str, Kept] | None
    alarms: Annotated[list[str], Field(description="what is gone almost whole: sources, and what a variant keeps of them")]
    comparisons: list[str]
    links: dict[str, str]


class CorpusPage(Answer):
    """Corpora by id, and where to go on."""

    items: list[Summary]
    next: Annotated[str | None, Field(description="`after` of the page that follows; null on the last one")]


class Read(Answer):
    """What became of a source's records: records = documents + rejects + merged."""

    records: Count
    documents: Count
    merged: Count
    rejects: dict[str, Count]
    unknown_rests: Count


class Dropped(Answer):
    """What became of a source's documents in one variant: kept + dropped = documents; documents and tokens by split."""

    kept: Count
    dropped: dict[str, Count]
    documents: dict[str, Count]
    tokens: dict[str, Count]


class Accounts(Answer):
    """The counts that every build is held to."""

    sources: dict[str, Read]
    variants: dict[str, dict[str, Dropped]]


class Detail(Summary):
    """A corpus with the accounts of every source in every variant."""

    accounts: Accounts


# -- documents --------------------------------------------------------------------------------------------------------------


class Verdict(Answer):
    """What one variant did with the document; the shard, position and offset where it is kept."""

    variant: str
    verdict: Annotated[str, Field(description="keep, or the first reason against it")]
    stage: str | None
    value: float | None
    threshold: float | None
    duplicate_of: str | None
    split: str
    duplicate_run: str | None
    keeper: str | None
    prefix: str | None
    position: int | None
    offset: int | None


class Explained(Answer):
    """A document: who it is, its numbers, its duplicates, every variant's verdict. Its text is not repeated."""

    document: dict[str, str | None]
    signals: dict[str, Any]
    clusters: dict[str, Any]
    verdicts: list[Verdict]
    removed_by: str | None
    purged: bool


class Reject(Answer):
    """Records that never became documents: `count` of them from `locator` on."""

    source: str
    locator: str
    reason: str
    detail: str | None
    count: Count
    unknown_rest: bool


class Rejected(Answer):
    """A record that never became a document."""

    reject: Reject


class Explanation(Answer):
    """What goes by the name, in the corpus."""

    corpus: str
    name: str
    partial: Annotated[bool, Field(description=f"more go by it than the first {EXPLAINED}, which are here")]
    found: list[Explained | Rejected]


# -- scores -----------------------------------------------------------------------------------------------------------------


class Document(Answer):
    """A text to be scored."""

    model_config = ConfigDict(extra="forbid", strict=True)
    text: Annotated[str, Field(max_length=TEXT_BYTES, examples=[_RIVER], description=f"at most {TEXT_BYTES:,} bytes of UTF-8")]

    @field_validator("text")
    @classmethod
    def _is_short_enough(cls, text: str) -> str:
        if len(text) > TEXT_BYTES // 4 and len(text.encode()) > TEXT_BYTES:
            raise ValueError(f"a text of more than {TEXT_BYTES:,} bytes of UTF-8")
        return text


class ScoreRequest(Answer):
    """Texts, and with whose models to judge them: those of a corpus, or the language model alone."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"documents": [{"text": _RIVER}], "corpus": "demo", "variant": "filtered", "explain": True}]
        },
    )
    documents: Annotated[list[Document], Field(min_length=1, max_length=DOCUMENTS)]
    corpus: Annotated[str, Field(pattern=ID)] | None = None
    variant: Annotated[str, Field(max_length=64, description="whose verdict to add; needs `corpus`")] | None = None
    explain: Annotated[bool, Field(description="also the words that moved the quality most")] = False


class Score(Answer):
    """One text's judgement: the very object that `winnow score` prints."""

    language: str | None
    language_score: Annotated[float | None, Field(ge=0)]
    quality: Annotated[float | None, Field(ge=0, le=1, description="calibrated probability of `curated`")]
    signals: dict[str, Any]
    verdict: Annotated[str | None, Field(description="keep, or the first reason against it; null without a variant")]
    keep_probability: Annotated[float | None, Field(ge=0, le=1)]
    contributions: Annotated[
        list[tuple[str, float]], Field(description="with `explain`: words, and by how much each moved the quality's margin")
    ] = []


class Scores(Answer):
    """Judgements in the order of the documents."""

    corpus: str | None
    variant: str | None
    results: list[Score]


# -- the service itself -----------------------------------------------------------------------------------------------------


class Alive(Answer):
    """The process answers."""

    status: Literal["ok"]
    version: str


class Ready(Answer):
    """Every check, `ok` or what is wrong."""

    status: Literal["ready"]
    checks: dict[str, str]
