"""The ``curate`` section of a recipe. Importing it needs none of the curation libraries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, field_validator, model_validator

from herdlm.base.recipe import Section
from herdlm.curate.orthography import LANGUAGES


class HeuristicsConfig(Section):
    """Thresholds of the rules in ``heuristics.py``, where the origin of each is named. Shares run from 0 to 1."""

    min_words: int = Field(50, ge=0)
    max_words: int = Field(100_000, ge=1)
    min_mean_word_chars: float = Field(3.0, ge=0, description="of English; other languages' scaled")
    max_mean_word_chars: float = Field(10.0, gt=0, description="of English; other languages' scaled")
    min_stop_words: int = Field(2, ge=0, description="different stop words of the page's own language")
    min_sentences: int = Field(3, ge=0, description="ends of sentences")
    drop_curly_brackets: bool = Field(False, description="as C4 does; it drops pages with code")
    min_alphabetic_words: float = Field(0.8, ge=0, le=1, description="share of words with a letter in them")
    max_symbols_per_word: float = Field(0.1, ge=0, description="'#' and ellipses, each, per word")
    max_bullet_lines: float = Field(0.9, ge=0, le=1)
    max_ellipsis_lines: float = Field(0.3, ge=0, le=1)
    min_terminal_lines: float = Field(0.12, ge=0, le=1, description="share of lines that end as sentences do")
    max_short_lines: float = Field(0.67, ge=0, le=1)
    short_line_chars: int = Field(30, ge=1)
    max_lines_per_word: float = Field(0.3, ge=0)
    max_duplicate_lines: float = Field(0.3, ge=0, le=1)
    max_duplicate_line_chars: float = Field(0.2, ge=0, le=1)
    max_duplicate_paragraphs: float = Field(0.3, ge=0, le=1)
    max_duplicate_paragraph_chars: float = Field(0.2, ge=0, le=1)
    max_top_ngram_chars: tuple[float, float, float] = Field(
        (0.20, 0.18, 0.16), description="share of the text in its commonest word 2-, 3- and 4-gram"
    )
    max_duplicate_ngram_chars: tuple[float, float, float, float, float, float] = Field(
        (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), description="share of the text in repeated word 5- to 10-grams"
    )
    max_line_ngram_chars: float = Field(
        0.5, ge=0, le=1, description="a line with more in repeated 5-grams is repetitive"
    )
    repetitive_line_words: int = Field(40, ge=1, description="shorter lines are never repetitive")
    max_dirty_words: float = Field(0.01, ge=0, le=1, description="share of the words; 1 turns the rule off")
    min_dirty_words: int = Field(3, ge=1, description="fewer never drop a page")

    @model_validator(mode="after")
    def _some_length_is_allowed(self) -> HeuristicsConfig:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}")
        return self


class UrlConfig(Section):
    """Which addresses are dropped unread: files with a domain or a word a line (``blocked.py``)."""

    blocked_domains: tuple[str, ...] = Field((), description="files; a domain covers its subdomains")
    blocked_words: tuple[str, ...] = Field((), description="files; words between the punctuation of an address")


class PiiRule(Section):
    """What is done about one kind of personal data."""

    action: Literal["mask", "keep"] = Field("mask", description="keep: count only")
    max_count: int | None = Field(None, ge=0, description="more in a page drop it")
    max_per_1000_words: float | None = Field(None, ge=0, description="more drop the page")


class PiiConfig(Section):
    """Personal data and secrets, by kind; see ``pii.py``."""

    email: PiiRule = PiiRule(max_per_1000_words=50)
    phone: PiiRule = PiiRule(max_per_1000_words=50)
    ip: PiiRule = PiiRule(max_per_1000_words=100)
    card: PiiRule = PiiRule(max_count=5)
    iban: PiiRule = PiiRule(max_count=20)
    key: PiiRule = PiiRule()
    min_count: int = Field(5, ge=1, description="fewer of a kind never drop a page for their density")


class OutliersConfig(Section):
    """Documents whose words are far from the corpus's; see ``outliers.py``."""

    max_divergence: float = Field(4.0, gt=0, description="bits")
    prior_words: int = Field(500, ge=1, description="words of the corpus's distribution mixed into each document's")
    min_reference_words: int = Field(1_000_000, ge=1, description="languages with fewer in the corpus are not measured")


class HostsConfig(Section):
    """When all of a host's pages are dropped; see ``hosts.py``."""

    min_pages: int = Field(3, ge=1, description="hosts with fewer are judged by page alone")
    max_pii_per_1000_words: float = Field(20.0, gt=0)
    max_dirty_words_per_1000_words: float = Field(5.0, gt=0)


class NearDuplicatesConfig(Section):
    """MinHash with banding: two texts meet in a band when all its rows of their signatures agree.

    Texts whose word n-grams have Jaccard similarity s become candidates with probability
    ``1 - (1 - s**rows)**bands``: with 14 x 8 half of the pairs at s = 0.7 and 94% at 0.85. A candidate is joined to
    the first text it met if a sketch of both puts their similarity at ``min_similarity`` or more.
    """

    ngram_words: int = Field(5, ge=1)
    bands: int = Field(14, ge=1)
    rows: int = Field(8, ge=1)
    min_similarity: float = Field(0.8, ge=0, le=1, description="0: candidates are joined unchecked")
    sketch: int = Field(512, ge=1, description="minima that texts are compared by, a byte each")


class RepeatedLinesConfig(Section):
    """Lines that too many documents share (``duplicates/lines.py``)."""

    max_documents: int = Field(6, ge=1, description="a line in more documents of a bucket than this is removed")
    bucket_documents: int = Field(30_000_000, ge=1, description="documents that lines are counted over")
    max_removed: float = Field(0.5, ge=0, le=1, description="share of a text; where more is removed, the rest goes too")


# Keys that name a model, list, index or benchmark; ``*`` stands for any name.
PATHS = (
    "url.blocked_domains",
    "url.blocked_words",
    "index",
    "quality.model",
    "domains.model",
    "contamination.benchmarks.*.path",
)
# Keys that change how the work is done, but not what comes of it.
PACE = ("workers", "cluster", "batch_pages", "shuffle_megabytes")


class ClassifierConfig(Section):
    """How a linear classifier is trained: see ``grade/linear.py``."""

    bits: int = Field(20, ge=8, le=26, description="2 ** bits buckets for words and word pairs")
    max_words: int = Field(2_000, ge=1, description="words of a text that are read, from its beginning")
    min_texts: int = Field(2, ge=1, description="training texts in which a feature must occur to count")
    epochs: int = Field(5, ge=1)
    rate: float = Field(0.5, gt=0, description="AdaGrad's learning rate")


class GradeConfig(Section):
    """How a grader is trained and told apart from chance: see ``grade/train.py``."""

    classifier: ClassifierConfig = ClassifierConfig()
    good: float = Field(3.0, description="labels with a score: from which score on a text counts as good")
    good_labels: tuple[str, ...] = Field(
        ("good",), min_length=1, description="labels with a name: the names of good texts"
    )
    held_out_share: float = Field(0.2, gt=0, lt=1, description="of the labels, for the report")
    calibration_share: float = Field(0.2, gt=0, lt=1, description="of the labels, for calibration")
    min_calibration_texts: int = Field(
        100, ge=10, description="of one language, for a calibration of its own; fewer use that of all languages"
    )
    report_at: float = Field(0.5, gt=0, lt=1, description="the score from which the report counts a text as kept")

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> GradeConfig:
        if self.held_out_share + self.calibration_share > 0.9:
            raise ValueError("held_out_share and calibration_share leave less than a tenth of the labels to train on")
        return self


class CutoffConfig(Section):
    """Which documents of a language are good enough: from ``min_score`` on, and the best ``keep_share``."""

    min_score: float = Field(0.0, ge=0, le=1)
    keep_share: float = Field(1.0, gt=0, le=1, description="the best share of the language's documents")


class QualityConfig(CutoffConfig):
    """The quality step. Without a model, documents are scored by countable properties (``quality.py``)."""

    model: str = Field("", description="a grader's folder, as `herdlm grade train` makes")
    languages: dict[str, CutoffConfig] = Field({}, description="other limits for some languages, by ISO 639-1 code")


class DomainsConfig(Section):
    """The domain step. Without a model, rules tell code and mathematics from prose (``grade/domain_rules.py``)."""

    model: str = Field("", description="a classifier's folder, as `herdlm grade train-domains` makes")
    max_share: dict[str, float] = Field({}, description="the most that a domain may have of the words kept")

    @field_validator("max_share")
    @classmethod
    def _are_shares(cls, shares: dict[str, float]) -> dict[str, float]:
        for domain, share in shares.items():
            if not 0 < share < 1:
                raise ValueError(f"max_share of {domain} is {share}: give a share between 0 and 1")
        return shares


class BenchmarkConfig(Section):
    """A benchmark whose examples must not be in the corpus."""

    path: str = Field(description="a JSONL (also .gz) or Parquet file")
    fields: tuple[str, ...] = Field(("text",), min_length=1, description="whose texts, joined, are one example")
    ngram_words: int = Field(8, ge=2)
    min_overlap: float = Field(
        0.5, gt=0, le=1, description="share of an example's words from which it counts as leaked"
    )
    max_examples_per_ngram: int = Field(
        10, ge=1, description="an n-gram of more examples than this is the benchmark's template and counts for nothing"
    )
    action: Literal["flag", "drop"] = Field("drop", description="what to do with a document that holds an example")


class ContaminationConfig(Section):
    """The contamination step, benchmark by benchmark."""

    benchmarks: dict[str, BenchmarkConfig] = Field({}, description="by the name that reports give them")


class LabelConfig(Section):
    """How a language model is asked for labels: see ``grade/ask.py``."""

    sample: int = Field(0, ge=0, description="label this many documents, chosen by their ids; 0 for all")
    max_chars: int = Field(6_000, ge=100, description="of a document that are shown, from its beginning")
    max_tokens: int = Field(400, ge=1, description="of an answer")
    concurrency: int = Field(8, ge=1, description="questions under way at a time")
    timeout_seconds: float = Field(120.0, gt=0, description="for one try")
    tries: int = Field(6, ge=1, description="for one document, before it is left for a later run")
    first_wait_seconds: float = Field(1.0, ge=0, description="after a failed try; doubled after each further one")
    max_wait_seconds: float = Field(60.0, ge=0, description="also the most that a server's Retry-After is heeded")
    give_up_after: int = Field(20, ge=1, description="documents in a row without an answer, before the run stops")


class CurateConfig(Section):
    """From raw pages to clean documents."""

    format: Literal["auto", "warc", "parquet", "jsonl", "text"] = Field(
        "auto", description="auto: by the source's ending; a folder is source code"
    )
    text_column: str = Field("text", description="Parquet and JSONL: the column with the text")
    url_column: str = Field("url", description="Parquet and JSONL: the column with the address; may be absent")
    date_column: str = Field("date", description="Parquet and JSONL: the column with the date; may be absent")
    max_page_bytes: int = Field(8 * 2**20, ge=1)
    shard_megabytes: float = Field(16.0, gt=0, description="of a source file, read and resumed as one piece")
    verify_digests: bool = Field(True, description="drop WARC records whose block contradicts its own digest")

    languages: tuple[str, ...] = Field(
        ("en", "de", "fr", "es"), min_length=1, description="codes to keep, ISO 639-1 where there is one"
    )
    min_language_score: float = Field(0.5, ge=0, le=1, description="languages with close neighbours: 0.8 times this")
    language_thresholds: dict[str, float] = Field({}, description="a language's own min_language_score")
    url: UrlConfig = UrlConfig()
    heuristics: HeuristicsConfig = HeuristicsConfig()
    pii: PiiConfig = PiiConfig()
    outliers: OutliersConfig = OutliersConfig()
    hosts: HostsConfig = HostsConfig()
    near_duplicates: NearDuplicatesConfig = NearDuplicatesConfig()
    index: str = Field("", description="of earlier corpora, whose documents are dropped: see `herdlm index`")
    repeated_lines: RepeatedLinesConfig = RepeatedLinesConfig()
    quality: QualityConfig = QualityConfig()
    domains: DomainsConfig = DomainsConfig()
    contamination: ContaminationConfig = ContaminationConfig()

    keep_dropped: Literal["all", "sample", "none"] = Field(
        "all", description="which dropped documents to write, with text and reason"
    )
    dropped_sample: int = Field(50, ge=1, description="keep_dropped = sample: documents per shard, step and reason")
    workers: int = Field(2, ge=1, description="processes; the result is the same for any number")
    cluster: str | None = Field(
        None, description="a Ray cluster in place of processes: auto, ray://HOST:PORT or the head's address"
    )
    shuffle_megabytes: float = Field(256.0, gt=0, description="of keys sorted at a time when looking for duplicates")
    batch_pages: int = Field(32, ge=1, description="pages worked on at a time")

    @property
    def aids(self) -> tuple[str, ...]:
        """The paths of all models, lists, indexes and benchmarks that are used."""
        benchmarks = (benchmark.path for benchmark in self.contamination.benchmarks.values())
        named = (*self.url.blocked_domains, *self.url.blocked_words, self.index, self.quality.model, self.domains.model)
        return tuple(path for path in (*named, *benchmarks) if path)

    @field_validator("languages")
    @classmethod
    def _languages_are_supported(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        _check_languages(languages)
        return languages

    @field_validator("language_thresholds")
    @classmethod
    def _thresholds_are_probabilities_of_supported_languages(cls, thresholds: dict[str, float]) -> dict[str, float]:
        _check_languages(thresholds)
        for language, value in thresholds.items():
            if not 0 <= value <= 1:
                raise ValueError(f"the threshold {value} of {language!r} is not between 0 and 1")
        return thresholds


def _check_languages(languages: Iterable[str]) -> None:
    unknown = sorted(set(languages) - LANGUAGES)
    if unknown:
        raise ValueError(f"language {unknown[0]!r} is not supported; choose from {', '.join(sorted(LANGUAGES))}")
