"""Labels what a document is about: by a classifier trained on labels, or by rules for code and mathematics.

``DOMAINS`` are the kinds of knowledge in the shipped rubric (``rubrics/domains.md``). A classifier can be trained on
other names.
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
    """A way to label domains."""

    @property
    def names(self) -> tuple[str, ...]:
        """The domains that it can return."""
        ...

    def label(self, texts: Sequence[str]) -> list[str]:
        """Return the domain of each text."""
        ...


class DomainRules:
    """Labels code, mathematics and general text by rules (``rules.py``)."""

    names = (CODE, MATHEMATICS, GENERAL)

    def label(self, texts: Sequence[str]) -> list[str]:
        """Implements :class:`DomainLabels`."""
        return [domain_of(text) for text in texts]


class DomainClassifier:
    """Labels the most likely of the domains that a classifier was trained on."""

    def __init__(self, classifier: LinearClassifier) -> None:
        self.classifier = classifier

    @property
    def names(self) -> tuple[str, ...]:
        """Implements :class:`DomainLabels`."""
        return self.classifier.labels

    def label(self, texts: Sequence[str]) -> list[str]:
        """Implements :class:`DomainLabels`."""
        return [self.names[best] for best in self.classifier.logits(texts).argmax(axis=1).tolist()]

    @classmethod
    def load(cls, folder: Path) -> DomainClassifier:
        """Load the classifier published in ``folder``.

        Raises:
            InputError: There is none.
            DamagedError: A file is missing or changed.
        """
        require_model(folder, KIND, "herdlm grade train-domains")
        return cls(LinearClassifier.load(folder))


def open_domains(config: DomainsConfig) -> DomainLabels:
    """Return the labeler that a recipe asks for.

    Raises:
        InputError: Its model does not exist, or it caps a domain that is never labeled.
    """
    labels: DomainLabels = DomainClassifier.load(Path(config.model)) if config.model else DomainRules()
    unknown = sorted(set(config.max_share) - set(labels.names))
    if unknown:
        raise InputError(
            f"curate.domains.max_share caps {unknown[0]}, which is not a domain",
            f"Choose from {', '.join(labels.names)}",
        )
    return labels
