"""Makes preference data: the current model answers, and an annotator ranks the answers and corrects some.

Here the annotator is the prompts' verifier, which knows the right answers and prefers them. Human annotators would
produce the same files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from herdlm.align.config import PreferencesConfig
from herdlm.base.seeds import stream
from herdlm.tokens.chat import Message
from herdlm.tokens.dialogs import Dialog
from herdlm.tokens.preferences import Preference


@dataclass(slots=True)
class Annotations:
    """A round's preference data: pairs to train on, held-out pairs, corrected answers, and counts for the manifest."""

    pairs: list[Preference] = field(default_factory=list)
    held_out: list[Preference] = field(default_factory=list)
    edits: list[Dialog] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)


def assistant(text: str) -> list[Message]:
    """A text as the assistant's message."""
    return [{"role": "assistant", "content": text}]


def annotate(rows: Sequence[Mapping[str, Any]], config: PreferencesConfig, *, source: str, seed: int) -> Annotations:
    """Rank each prompt's answers: a right one is chosen over a wrong one, and some prompts get an edited answer.

    A prompt with only right or only wrong answers gives no such pair. An edited answer, which only prompts with a
    ``demonstration`` get, is chosen over a wrong one (Llama 3 report, section 4.2.1: edited > chosen > rejected).

    Args:
        rows: of a samples file, with verdicts; those without are passed over.
        source: the model that wrote the answers.
    """
    rng = stream(seed, "annotate")
    annotations = Annotations()
    right_samples = samples = 0
    for row in rows:
        verdicts = {s["answer"]: s["verdict"]["passed"] for s in row["samples"] if "verdict" in s}
        right = sorted(answer for answer, passed in verdicts.items() if passed)
        wrong = sorted(answer for answer, passed in verdicts.items() if not passed)
        samples += len(row["samples"])
        right_samples += sum(verdicts.get(s["answer"], False) for s in row["samples"])
        edited = rng.random() * 100 < config.edited_percent and "demonstration" in row
        held_out = rng.random() * 100 < config.held_out_percent
        destination = annotations.held_out if held_out else annotations.pairs
        if right and wrong:
            destination.append(_pair(row, right[0], wrong[int(rng.integers(len(wrong)))], "better", source))
        if edited and not held_out:
            answer = row["demonstration"]
            if wrong:
                destination.append(_pair(row, answer, wrong[int(rng.integers(len(wrong)))], "edited", source))
            dialog: Dialog = {
                "messages": [*row["prompt"], *assistant(answer)],
                "task": row.get("task", ""),
                "source": "edited",
            }
            annotations.edits.append(dialog)
    annotations.counts = {
        "prompts": len(rows),
        "samples": samples,
        "right_share": round(right_samples / max(samples, 1), 4),
        "pairs": len(annotations.pairs),
        "held_out_pairs": len(annotations.held_out),
        "edits": len(annotations.edits),
    }
    return annotations


def _pair(row: Mapping[str, Any], chosen: str, rejected: str, rating: str, source: str) -> Preference:
    pair: Preference = {
        "prompt": row["prompt"],
        "chosen": assistant(chosen),
        "rejected": assistant(rejected),
        "rating": rating,
        "task": row.get("task", ""),
        "chosen_source": "edited" if rating == "edited" else source,
        "rejected_source": source,
    }
    return pair
