"""What a document is about: by a classifier trained on labels, or by rules that know code and mathematics.

``DOMAINS`` are the kinds of knowledge that the shipped rubric (``rubrics/domains.md``) asks a language model to choose
from. A classifier may be trained on other names just as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import Field, field_validator

from herdlm.base.errors import InputError
from herdlm.base.recipe import Section
from herdlm.curate.classify.grader import require_model
from herdlm.curate.classify.linear import LinearClassifier
from herdlm.curate.steps.domains.rules import CODE, GENERAL, MATHEMATICS, domain_of

KIND = "domain classifier"

DOMAINS = (
    CODE,
    MATHEMATICS,
    "natural_science",
    "engineering",
    "computing",
    "medicine_health",
    "law_government",
    "business_finance",
    "education",
    "history_society",
    "philosophy_religion",
    "arts_entertainment",
    "sports_games",
    "travel_places",
    "home_food_hobbies",
    "commerce_advertising",
    GENERAL,
)


class DomainsConfig(Section):
    """How domains are labeled, and capped. Without a model, rules recognize code and mathematics (``rules.py``)."""

    model: str = Field("", description="a classifier's folder, as `herdlm grade train-domains` makes")
    max_share: dict[str, float] = Field({}, description="by domain, the largest share of the words kept")

    @field_validator("max_share")
    @classmethod
    def _are_shares(cls, shares: dict[str, float]) -> dict[str, float]:
        for domain, share in shares.items():
            if not 0 < share < 1:
                raise ValueError(f"max_share of {domain} is {share}: give a share between 0 and 1")
        return shares


class DomainLabels(Protocol):
    """What every way to find domains does."""

    @property
    def names(self) -> tuple[str, ...]:
        """The domains it tells apart."""
        ...

    def label(self, texts: Sequence[str]) -> list[str]:
        """The domain of each text."""
        ...


class DomainRules:
    """Code, mathematics and general, by ``domain_rules.py``."""

    names = (CODE, MATHEMATICS, GENERAL)

    def label(self, texts: Sequence[str]) -> list[str]:
        """As :class:`DomainLabels` says."""
        return [domain_of(text) for text in texts]


class DomainClassifier:
    """The likeliest of the domains a classifier was trained on."""

    def __init__(self, classifier: LinearClassifier) -> None:
        self.classifier = classifier

    @property
    def names(self) -> tuple[str, ...]:
        """As :class:`DomainLabels` says."""
        return self.classifier.labels

    def label(self, texts: Sequence[str]) -> list[str]:
        """As :class:`DomainLabels` says."""
        return [self.names[best] for best in self.classifier.logits(texts).argmax(axis=1).tolist()]

    @classmethod
    def load(cls, folder: Path) -> DomainClassifier:
        """The classifier that was published as ``folder``.

        Raises:
            InputError: there is none.
            DamagedError: a file of it is missing or changed.
        """
        require_model(folder, KIND, "herdlm grade train-domains")
        return cls(LinearClassifier.load(folder))


def open_domains(config: DomainsConfig) -> DomainLabels:
    """What a recipe asks for.

    Raises:
        InputError: it names a model that is not there, or caps a domain that is never found.
    """
    found: DomainLabels = DomainClassifier.load(Path(config.model)) if config.model else DomainRules()
    unknown = sorted(set(config.max_share) - set(found.names))
    if unknown:
        raise InputError(f"max_share caps {unknown[0]}, which is no domain here", f"There are {', '.join(found.names)}")
    return found
