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
    ``1 - (1 - s**rows)**bands``: with 14 x 8 half of the pairs at s = 0.7 and 94% at 0.85.
    """

    ngram_words: int = Field(5, ge=1)
    bands: int = Field(14, ge=1)
    rows: int = Field(8, ge=1)


class CurateConfig(Section):
    """From raw pages to clean documents."""

    format: Literal["auto", "warc", "parquet", "jsonl"] = Field("auto", description="auto: by the source's ending")
    text_column: str = Field("text", description="Parquet and JSONL: the column with the text")
    url_column: str = Field("url", description="Parquet and JSONL: the column with the address; may be absent")
    date_column: str = Field("date", description="Parquet and JSONL: the column with the date; may be absent")
    max_page_bytes: int = Field(8 * 2**20, ge=1)
    verify_digests: bool = Field(True, description="drop WARC records whose block contradicts its own digest")

    languages: tuple[str, ...] = Field(
        ("en", "de", "fr", "es"), min_length=1, description="codes to keep, ISO 639-1 where there is one"
    )
    min_language_score: float = Field(0.5, ge=0, le=1, description="languages with close neighbours: 0.8 times this")
    language_thresholds: dict[str, float] = Field({}, description="a language's own min_language_score")
    heuristics: HeuristicsConfig = HeuristicsConfig()
    pii: PiiConfig = PiiConfig()
    outliers: OutliersConfig = OutliersConfig()
    hosts: HostsConfig = HostsConfig()
    near_duplicates: NearDuplicatesConfig = NearDuplicatesConfig()

    keep_dropped: bool = Field(True, description="write dropped.parquet with the text and the reason")
    workers: int = Field(2, ge=1, description="processes; the result is the same for any number")
    batch_pages: int = Field(32, ge=1, description="pages handed to a worker at a time")
    read_ahead_bytes: int = Field(64 * 2**20, ge=1, description="raw pages held in memory before they are worked on")

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
