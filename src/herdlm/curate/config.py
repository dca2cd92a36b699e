"""The ``curate`` section of a recipe, which puts the sections of the steps together.

Importing it needs none of the curation libraries.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

from pydantic import Field, field_validator

from herdlm.base.recipe import Section
from herdlm.curate.steps.contamination.benchmarks import ContaminationConfig
from herdlm.curate.steps.domains.classifier import DomainsConfig
from herdlm.curate.steps.extract_config import ExtractConfig
from herdlm.curate.steps.heuristics import HeuristicsConfig
from herdlm.curate.steps.hosts import HostsConfig
from herdlm.curate.steps.language import LanguageConfig
from herdlm.curate.steps.near_duplicates.minhash import NearDuplicatesConfig
from herdlm.curate.steps.outliers import OutliersConfig
from herdlm.curate.steps.own import NAME, OwnStepConfig, PageStepName, identify
from herdlm.curate.steps.pii.step import PiiConfig
from herdlm.curate.steps.quality.cutoffs import QualityConfig
from herdlm.curate.steps.repeated_lines import RepeatedLinesConfig
from herdlm.curate.steps.repetitive_lines import RepetitiveLinesConfig
from herdlm.curate.steps.robots import RobotsConfig
from herdlm.curate.steps.url import UrlConfig

# The built-in steps, whose names the user's own steps cannot take.
STEPS = (
    *get_args(PageStepName),
    *("older_versions", "exact_duplicates", "near_duplicates"),
    *("hosts", "outliers", "repeated_lines", "contamination"),
)
# Keys that name a model, list, index or benchmark; ``*`` stands for any name.
PATHS = (
    "url.blocked_domains",
    "url.blocked_words",
    "index",
    "quality.model",
    "domains.model",
    "contamination.benchmarks.*.path",
)
# Keys that change how fast the work is done, but not its result.
PACE = ("workers", "cluster", "batch_pages", "shuffle_megabytes")


Format = Literal["auto", "warc", "parquet", "jsonl", "arrow", "text"]


class ColumnsConfig(Section):
    """Where the files of a pattern have their text, addresses and dates, in place of the keys of ``curate``."""

    format: Format = "auto"
    text_column: str = "text"
    url_column: str = ""
    date_column: str = ""


class CurateConfig(Section):
    """From raw pages to clean documents."""

    renamed: ClassVar = {
        "languages": "curate.language.keep",
        "min_language_score": "curate.language.min_score",
        "language_thresholds": "curate.language.thresholds",
    }

    format: Format = Field("auto", description="auto: by the source's ending; a folder is source code or a dataset")
    text_column: str = Field("text", description="of rows; a nested column is OUTER.INNER")
    url_column: str = Field(
        "", description="of rows, with the address; by default url or metadata.url, if there is one"
    )
    date_column: str = Field("", description="of rows; by default date, timestamp or created, if there is one")
    columns: dict[str, ColumnsConfig] = Field({}, description="other columns, by globs of the files' paths")
    max_page_bytes: int = Field(8 * 2**20, ge=1, description="larger pages are dropped")
    shard_megabytes: float = Field(16.0, gt=0, description="of a source file, read and resumed as one piece")
    verify_digests: bool = Field(True, description="drop WARC records whose block contradicts its own digest")

    robots: RobotsConfig = RobotsConfig()
    url: UrlConfig = UrlConfig()
    extract: ExtractConfig = ExtractConfig()
    language: LanguageConfig = LanguageConfig()
    domains: DomainsConfig = DomainsConfig()
    heuristics: HeuristicsConfig = HeuristicsConfig()
    repetitive_lines: RepetitiveLinesConfig = RepetitiveLinesConfig()
    pii: PiiConfig = PiiConfig()
    quality: QualityConfig = QualityConfig()
    near_duplicates: NearDuplicatesConfig = NearDuplicatesConfig()
    index: str = Field("", description="of earlier corpora, whose documents are dropped: see `herdlm index`")
    hosts: HostsConfig = HostsConfig()
    outliers: OutliersConfig = OutliersConfig()
    repeated_lines: RepeatedLinesConfig = RepeatedLinesConfig()
    contamination: ContaminationConfig = ContaminationConfig()
    steps: dict[str, OwnStepConfig] = Field({}, description="your own steps, by name: see docs/own-parts.md")

    keep_dropped: Literal["all", "sample", "none"] = Field(
        "all", description="which dropped documents to write, with text and reason"
    )
    dropped_sample: int = Field(50, ge=1, description="keep_dropped = sample: documents per shard, step and reason")
    workers: int = Field(2, ge=1, description="processes; the result is the same for any number")
    cluster: str | None = Field(
        None, description="a Ray cluster in place of processes: auto, ray://HOST:PORT or the head's address"
    )
    shuffle_megabytes: float = Field(256.0, gt=0, description="of keys sorted at a time when looking for duplicates")
    batch_pages: int = Field(32, ge=1, description="pages in a batch")

    @property
    def aids(self) -> tuple[str, ...]:
        """The paths of all models, lists, indexes and benchmarks that are used."""
        benchmarks = (benchmark.path for benchmark in self.contamination.benchmarks.values())
        named = (*self.url.blocked_domains, *self.url.blocked_words, self.index, self.quality.model, self.domains.model)
        return tuple(path for path in (*named, *benchmarks) if path)

    def fingerprint(self) -> dict[str, Any]:
        """Return what determines the result: all keys but those of ``PACE``, and the code of the user's own steps.

        Raises:
            InputError: A step of the user's cannot be imported.
        """
        keys = self.model_dump(mode="json", exclude={*PACE, "steps"})
        return keys | ({"steps": {name: identify(name, own) for name, own in self.steps.items()}} if self.steps else {})

    @field_validator("steps")
    @classmethod
    def _step_names_are_free(cls, steps: dict[str, OwnStepConfig]) -> dict[str, OwnStepConfig]:
        for name in steps:
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a step name: use lower-case letters, digits and underscores")
            if name in STEPS:
                raise ValueError(f"{name!r} is the name of a built-in step: choose another")
        return steps
