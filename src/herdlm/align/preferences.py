"""Makes preference data: the current model answers, and an annotator ranks the answers and corrects some.

Here the annotator is the tasks' verifier, which knows the right answers and prefers them. Human annotators would
produce the same files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from herdlm.align.bank.answers import as_messages
from herdlm.align.bank.tasks import Question, is_right
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


def as_dialog(question: Question, answer: str, *, source: str) -> Dialog:
    """A question and its answer as a dialog to fine-tune on."""
    dialog: Dialog = {"messages": [*as_messages(question), *assistant(answer)], "task": question.task, "source": source}
    return dialog


def annotate(
    questions: Sequence[Question],
    answers: Sequence[Sequence[str]],
    config: PreferencesConfig,
    *,
    source: str,
    seed: int,
) -> Annotations:
    """Rank each question's answers: a right one is chosen over a wrong one, and some questions get an edited answer.

    A question with only right or only wrong answers gives no such pair. An edited answer is chosen over a wrong one
    (Llama 3 report, section 4.2.1: edited > chosen > rejected).
    """
    rng = stream(seed, "annotate")
    annotations = Annotations()
    right_samples = 0
    for question, given in zip(questions, answers, strict=True):
        right = sorted({a for a in given if is_right(question, a)})
        wrong = sorted({a for a in given if not is_right(question, a)})
        right_samples += sum(is_right(question, a) for a in given)
        edited = rng.random() * 100 < config.edited_percent
        held_out = rng.random() * 100 < config.held_out_percent
        destination = annotations.held_out if held_out else annotations.pairs
        if right and wrong:
            destination.append(_pair(question, right[0], wrong[int(rng.integers(len(wrong)))], "better", source))
        if edited and not held_out:
            if wrong:
                destination.append(
                    _pair(question, question.answer, wrong[int(rng.integers(len(wrong)))], "edited", source)
                )
            annotations.edits.append(as_dialog(question, question.answer, source="edited"))
    samples = sum(len(given) for given in answers)
    annotations.counts = {
        "prompts": len(questions),
        "samples": samples,
        "right_share": round(right_samples / max(samples, 1), 4),
        "pairs": len(annotations.pairs),
        "held_out_pairs": len(annotations.held_out),
        "edits": len(annotations.edits),
    }
    return annotations


def _pair(question: Question, chosen: str, rejected: str, rating: str, source: str) -> Preference:
    pair: Preference = {
        "prompt": as_messages(question),
        "chosen": assistant(chosen),
        "rejected": assistant(rejected),
        "rating": rating,
        "task": question.task,
        "chosen_source": "edited" if rating == "edited" else source,
        "rejected_source": source,
    }
    return pair
