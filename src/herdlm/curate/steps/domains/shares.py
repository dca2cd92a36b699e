"""Down-samples domains with too large a share of the corpus, by a hash of each document's id.

Which documents stay depends on their ids and on the corpus's words by domain, not on order or workers. A document that
stays at one share stays at every larger one.
"""

from __future__ import annotations

from collections.abc import Mapping

from herdlm.base.errors import InputError
from herdlm.base.seeds import derive_seed

TOO_COMMON = "domain_too_common"


def keep_shares(words: Mapping[str, int], max_share: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each domain's documents to keep, so that no domain exceeds its ``max_share`` of what is kept.

    ``words`` are the corpus's by domain. A capped domain has ``cap`` of a total that the other domains determine:
    ``total = words of the others / (1 - sum of caps)``. Capping one domain lowers the total, so others can reach their
    caps. This repeats until none does.

    Raises:
        InputError: Every domain with words would be capped, so there is no total.
    """
    capped: set[str] = set()
    while True:
        free = sum(count for domain, count in words.items() if domain not in capped)
        rest = 1 - sum(max_share[domain] for domain in capped)
        if capped and (free == 0 or rest <= 0):
            raise InputError(
                f"the caps on {', '.join(sorted(capped))} cannot be met: the corpus has too little else",
                "Raise curate.domains.max_share, or leave one domain without a cap",
            )
        total = free / rest if rest > 0 else 0.0
        over = {d for d, cap in max_share.items() if d not in capped and words.get(d, 0) > cap * total}
        if not over:
            return {d: max_share[d] * total / n if d in capped else 1.0 for d, n in words.items()}
        capped |= over


def check_share(id_: str, domain: str, shares: Mapping[str, float], seed: int) -> str | None:
    """Return the reason to drop a document, ``domain_too_common``, or None."""
    drawn = derive_seed(seed, "curate", "domain", id_) / 2**63
    return TOO_COMMON if drawn >= shares[domain] else None
