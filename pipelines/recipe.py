"""The recipe: what a corpus is made of and how it is judged. One YAML file, strict, printed in full before a run.

What IS in the corpus stands here; how it is run (engine, workers, paths of engines) stands in engine files and never changes
a byte. An unknown key is an error that names the nearest known one or its section.

    sources    what comes in, one entry a source               near      near-duplicate clusters, once for all variants
    fit        what is learned: classifier, tokenizer          variants  several decisions over one annotated corpus
    tokens     shards and validation share                 mixture   what share of a training run comes from each source
    evaluations  benchmark texts to look for               terms     lists of words to count
    bad_words  the list that C4's rules drop pages by
    remove     a list of documents that are taken back    compare    what the filter is worth, by trained models
    against    other runs whose documents are not taken again
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from pipelines import mixture
from pipelines.errors import UserError
from pipelines.recipe_compare import Compare
from pipelines.strict import Strict

NAME_PATTERN = r"^[a-z0-9][a-z0-9_]{0,63}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Share = Annotated[float, Field(ge=0, le=1)]
Jaccard = Annotated[float, Field(gt=0, le=1)]
_OneOrMore = pydantic.BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
_Files = Annotated[list[str], Field(min_length=1), _OneOrMore]
_AnyFiles = Annotated[list[str], _OneOrMore]
_Kinds = Annotated[list[Literal["exact", "near"]], _OneOrMore]
_RuleNames = pydantic.BeforeValidator(lambda given: [given] if isinstance(given, str) and given != "none" else given)
_WITH_FIELDS = ("jsonl", "parquet", "datasets")


class OwnNear(Strict):
    """What near duplicates of one source are held against, where that is stricter than the run's."""

    min_jaccard: Jaccard


class Source(Strict):
    """One source: inputs of one format."""

    format: Literal["jsonl", "parquet", "text", "warc", "mediawiki", "datasets", "code", "books", "arxiv", "stackexchange"]
    paths: _Files  # files or wildcards; relative ones lie beside the recipe
    root: str | None = None  # locators are relative to this; default: the longest prefix without a wildcard
    fields: dict[Literal["text", "id", "url", "title", "date", "license"], str] = {}  # -> the record's own names
    blocklist: _AnyFiles = []  # files or folders of hosts and paths: their URLs are no documents
    license: Annotated[str, Field(pattern=r"^\S(.{0,198}\S)?$")] | None = None  # of documents whose record states none
    form: Literal["prose", "verbatim"] = "prose"  # verbatim: code and LaTeX keep everything but NUL and CRLF
    clean: Literal["none", "c4"] = "none"  # c4: leave out the lines that C4 leaves out, before normalisation
    mask: bool = False  # write e-mail addresses and public IP addresses as email@example.com and 192.0.2.1
    paragraphs: bool = False  # keep one copy of each paragraph in this source (CCNet)
    near: OwnNear | None = None  # a document of this source is a near duplicate only from here on
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0  # of duplicates, the highest one keeps its document
    alarm: bool = True  # false: next to nothing of this source may be left, and the build does not end with an alarm for it

    @pydantic.model_validator(mode="after")
    def _has_fields(self) -> Source:
        if self.fields and self.format not in _WITH_FIELDS:
            raise ValueError(f"fields are for {', '.join(_WITH_FIELDS)}; a record of {self.format} has its own")
        return self


class Limits(Strict):
    """Bounds that hold for any input."""

    record_bytes: Annotated[int, Field(ge=1024)] = 64 << 20  # one record, decompressed
    part_bytes: Annotated[int, Field(ge=1024)] = 64 << 20  # text in one part; small inputs are packed, large ones cut


class Near(Strict):
    """MinHash-LSH clusters. Bands and rows are given, or chosen for `min_jaccard` by datasketch's optimiser."""

    ngram: Annotated[int, Field(ge=1, le=32)] = 5
    permutations: Annotated[int, Field(ge=8, le=1024)] = 112
    bands: Annotated[int, Field(ge=1)] | None = None
    rows: Annotated[int, Field(ge=1)] | None = None
    min_jaccard: Jaccard = 0.7  # every candidate pair is verified against this
    text_cap: Annotated[int, Field(ge=1000)] = 500_000  # bytes of a document that are shingled
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1

    @pydantic.model_validator(mode="after")
    def _bands_fit(self) -> Near:
        if (self.bands is None) != (self.rows is None):
            raise ValueError("give both bands and rows, or neither")
        if self.bands is not None and self.rows is not None and self.bands * self.rows > self.permutations:
            raise ValueError(f"bands x rows is {self.bands * self.rows}, over permutations ({self.permutations})")
        return self

    def banding(self) -> tuple[int, int]:
        """(bands, rows) in force."""
        if self.bands is not None and self.rows is not None:
            return self.bands, self.rows
        from pipelines.dedup.minhash import choose_bands

        return choose_bands(self.min_jaccard, self.permutations)


class QualityFit(Strict):
    """GLaM's classifier: curated sources against web sources; `judge` sources only measure it.

    With `cited_in`, LLaMA's: documents of the web sources whose URL these wikis cite against the others.
    """

    curated: list[str] = []
    cited_in: list[str] = []
    web: Annotated[list[str], Field(min_length=1)]
    judge_curated: list[str] = []
    judge_web: list[str] = []
    sample_mb: Annotated[float, Field(gt=0)] = 200.0  # text per class

    @pydantic.model_validator(mode="after")
    def _one_class(self) -> QualityFit:
        if bool(self.curated) == bool(self.cited_in):
            raise ValueError("give either curated or cited_in: sources of good text, or wikis whose citations tell it")
        return self


class PerplexityFit(Strict):
    """Kneser-Ney 5-gram models of `sources`, one a language; head, middle and tail are thirds of all other sources (CCNet)."""

    sources: Annotated[list[str], Field(min_length=1)]
    sample_mb: Annotated[float, Field(gt=0)] = 50.0  # text to learn from, and as much to find the thirds
    min_tokens: Annotated[int, Field(ge=1)] = 50_000  # a language with less has no model, and its documents no perplexity


class TokenizerFit(Strict):
    """A byte-level BPE trained on the corpus, or a given tokenizer.json."""

    file: str | None = None
    vocab_size: Annotated[int, Field(ge=257, le=1 << 20)] = 32_000
    digits: Literal["split", "runs"] = "split"  # split: every digit is its own token, as in LLaMA
    sample_mb: Annotated[float, Field(gt=0)] = 50.0


class Fit(Strict):
    """What is learned, and from what; without `quality` there is no classifier and quality is null."""

    quality: QualityFit | None = None
    perplexity: PerplexityFit | None = None
    tokenizer: TokenizerFit = TokenizerFit()


class Languages(Strict):
    """Keep documents that are identified as one of `keep` with at least `min_score`."""

    keep: Annotated[list[str], Field(min_length=1)]
    min_score: Share = 0.65


class Draw(Strict):
    """How quality decides. pareto: keep with probability (2 - q)^-alpha (GLaM); cut: keep from a threshold on (LLaMA).

    With `keep_rate` the law is shifted, or the threshold solved, so that this share of the tokens that reach it is kept.
    """

    draw: Literal["pareto", "cut"]
    alpha: Annotated[float, Field(gt=0)] = 9.0
    keep_rate: Share | None = None
    threshold: Share | None = None

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Draw:
        if self.draw == "pareto" and self.threshold is not None:
            raise ValueError("a pareto draw takes alpha and keep_rate, not threshold")
        if self.draw == "cut" and (self.threshold is None) == (self.keep_rate is None):
            raise ValueError("a cut takes either threshold or keep_rate")
        return self


class Policy(Strict):
    """How one source's documents are judged; null keys of a source's policy take the variant's default."""

    languages: Languages | Literal["any"] | None = None
    rules: Annotated[list[str] | dict[str, dict[str, float]] | Literal["none"] | None, _RuleNames] = None
    perplexity: Literal["head", "middle", "any"] | None = None  # the last third that is kept; without a model all are kept
    decontaminate: bool | None = None  # drop documents that share an n-gram with one of `evaluations`
    quality: Draw | Literal["none"] | None = None
    min_bytes: Annotated[int, Field(ge=0)] | None = None  # text left after paragraph dedup


class Variant(Strict):
    """One set of decisions: what is deduplicated, the default policy, and sources with a policy of their own."""

    dedup: _Kinds = []
    default: Policy = Policy()
    sources: dict[str, Policy] = {}

    @pydantic.model_validator(mode="after")
    def _once(self) -> Variant:
        if len(set(self.dedup)) < len(self.dedup):
            raise ValueError("dedup names a kind twice")
        return self


class Tokens(Strict):
    """How token shards are cut."""

    shards: Annotated[int, Field(ge=1, le=10_000)] = 1  # per source, split and variant
    validation: Share = 0.01


class Mixture(Strict):
    """The training run that the corpus is for: its tokens, and the proportions of the sources on any scale; see `mixture`."""

    tokens: Annotated[int, Field(ge=1)]
    weights: dict[Name, Annotated[float, Field(ge=0)]]  # every source is named; 0 leaves one out
    max_epochs: Annotated[float, Field(gt=0)] = mixture.MAX_EPOCHS  # a source to be gone through more often is warned of

    @pydantic.model_validator(mode="after")
    def _something(self) -> Mixture:
        if not any(self.weights.values()):
            raise ValueError("weights leave every source out; give at least one a weight above 0")
        return self


_RunAlone = pydantic.BeforeValidator(lambda given: {"run": given} if isinstance(given, str) else given)


class Against(Strict):
    """Another run, one of whose variants is taken to keep its documents before this one; see `against`."""

    run: Annotated[str, Field(min_length=1)]  # its directory, relative to the recipe
    variant: str | None = None  # default: the only one, or `filtered`


class Recipe(Strict):
    """See the module's head; `load` reads one."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    limits: Limits = Limits()
    near: Near = Near()
    fit: Fit = Fit()
    language_characters: Annotated[int, Field(ge=1)] | None = None  # judge only the first characters of a document
    evaluations: Annotated[dict[Name, _Files], Field(max_length=64)] = {}  # JSON lines whose texts are looked for
    terms: Annotated[dict[Name, _Files], Field(max_length=64)] = {}  # lists of words and phrases that are counted
    bad_words: _AnyFiles = []  # files of words and phrases: the family `c4` drops documents that hold one
    variants: Annotated[dict[Name, Variant], Field(min_length=1)]
    tokens: Tokens = Tokens()
    mixture: Mixture | None = None
    remove: str | None = None  # a list of documents that are taken back, relative to the recipe; see `removal`
    against: list[Annotated[Against, _RunAlone]] = []
    compare: Compare | None = None  # what `winnow compare` trains and judges

    @pydantic.model_validator(mode="after")
    def _names_exist(self) -> Recipe:
        def known(names: Iterable[str], where: str) -> None:
            for name in names:
                if name not in self.sources:
                    raise ValueError(f"{where} names the source {name!r}{_nearest(name, self.sources)}")

        if "default" in self.sources:
            raise ValueError("a source cannot be called 'default': that is the draw that sources share")
        for name, own in self.min_jaccards().items():
            if own < self.near.min_jaccard:
                raise ValueError(
                    f"sources.{name}.near.min_jaccard is {own:g}, below near.min_jaccard ({self.near.min_jaccard:g}), for which"
                    " candidates are found; lower that one"
                )
        quality = self.fit.quality
        if quality is not None:
            roles = {
                "fit.quality.curated": quality.curated,
                "fit.quality.web": quality.web,
                "fit.quality.judge_curated": quality.judge_curated,
                "fit.quality.judge_web": quality.judge_web,
            }
            seen: dict[str, str] = {}
            for role, names in roles.items():
                known(names, role)
                for name in names:
                    if name in seen:
                        raise ValueError(f"the source {name!r} stands under {seen[name]} and {role}; a source has one role")
                    seen[name] = role
            known(quality.cited_in, "fit.quality.cited_in")
            for name in quality.cited_in:
                if self.sources[name].format != "mediawiki":
                    raise ValueError(f"fit.quality.cited_in names {name!r}, no mediawiki source: only a dump says what it cites")
        if self.fit.perplexity is not None:
            known(self.fit.perplexity.sources, "fit.perplexity.sources")
        if self.mixture is not None:
            known(self.mixture.weights, "mixture.weights")
            for source in self.sources:
                if source not in self.mixture.weights:
                    raise ValueError(f"mixture.weights does not name the source {source!r}; give it a weight, or 0 to leave it out")
        for variant_name, variant in self.variants.items():
            known(variant.sources, f"variants.{variant_name}.sources")
            for source in self.sources:
                policy = self.policy(variant_name, source)
                if quality is None and isinstance(policy.quality, Draw):
                    raise ValueError(f"variants.{variant_name} draws by quality but fit.quality is missing")
                if self.fit.perplexity is None and policy.perplexity != "any":
                    raise ValueError(f"variants.{variant_name} judges by perplexity but fit.perplexity is missing")
                if policy.decontaminate and not self.evaluations:
                    raise ValueError(f"variants.{variant_name} decontaminates but evaluations is missing")
        if self.compare is not None:
            known([*(self.compare.web or ()), *self.compare.second], "compare")
            for name in (*self.compare.variants, *self.compare.ladder):
                if name not in self.variants:
                    raise ValueError(f"compare names the variant {name!r}{_nearest(name, self.variants)}")
            known([name for name, one in self.compare.sets.items() if one.files is None], "compare.sets without files")
        return self

    def policy(self, variant: str, source: str) -> Policy:
        """The policy in force: the source's own keys over the variant's default.

        A source named under fit.quality.curated or cited_in is never quality-filtered unless its own policy says so.
        """
        chosen = self.variants[variant]
        own = chosen.sources.get(source, Policy())
        learned = self.fit.quality
        curated = learned is not None and source in (*learned.curated, *learned.cited_in)
        default_quality = "none" if curated else chosen.default.quality
        return Policy(
            languages=_first(own.languages, chosen.default.languages, "any"),
            rules=_first(own.rules, chosen.default.rules, "none"),
            perplexity=_first(own.perplexity, chosen.default.perplexity, "any"),
            decontaminate=_first(own.decontaminate, chosen.default.decontaminate, False),
            quality=_first(own.quality, default_quality, "none"),
            min_bytes=_first(own.min_bytes, chosen.default.min_bytes, 1 if self.sources[source].paragraphs else 0),
        )

    def check_languages(self, known: Sequence[str]) -> None:
        """UserError where a policy keeps a language that is none of the identifier's labels: it would keep no document."""
        for variant, chosen in self.variants.items():
            policies = {"default": chosen.default, **{f"sources.{name}": one for name, one in chosen.sources.items()}}
            for place, policy in policies.items():
                for name in policy.languages.keep if isinstance(policy.languages, Languages) else ():
                    if name not in known:
                        where = f"variants.{variant}.{place}.languages.keep"
                        raise UserError(
                            f"{where} names the language {name!r}{_nearest(name.lower(), known)}; they are codes such as 'en', 'zh'"
                        )

    def min_jaccards(self) -> dict[str, float]:
        """The similarity that a near duplicate of each source has at least."""
        return {name: self.near.min_jaccard if one.near is None else one.near.min_jaccard for name, one in self.sources.items()}

    def wanted_tokens(self) -> dict[str, int]:
        """Training tokens that the mixture wants, by source; {} without a mixture."""
        return mixture.wanted_tokens(self.mixture.weights, self.mixture.tokens) if self.mixture is not None else {}


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else ", which does not exist"
