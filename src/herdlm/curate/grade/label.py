"""Has a language model label the documents of a corpus by a rubric.

Labels are appended to the file in the corpus's order, including answers that could not be read, with their fault, so an
interrupted run can resume. Documents that the server refused or did not answer are counted and left out. The next run
asks for them again.
"""

from __future__ import annotations

import heapq
import json
import os
from collections import Counter, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from herdlm.base.errors import DamagedError, HerdError, InputError
from herdlm.base.progress import Progress
from herdlm.base.seeds import derive_seed
from herdlm.curate.grade.ask import Asker, NoAnswerError
from herdlm.curate.grade.config import LabelConfig
from herdlm.curate.grade.rubric import Rubric
from herdlm.curate.rows import read_corpus

UNPARSABLE = "unparsable"
AHEAD = 4  # questions sent ahead of the first unanswered one, as a multiple of the concurrency
KEPT_REPLY_CHARS = 2_000


def label_corpus(
    corpus: Path, rubric: Rubric, asker: Asker, out: Path, config: LabelConfig, *, seed: int = 0, quiet: bool = False
) -> dict[str, Any]:
    """Have the documents of ``corpus`` labeled into the JSONL file ``out``, and return the counts of the outcomes.

    A row has ``id``, ``language``, ``score`` or ``label`` or ``fault``, the ``reply``, ``model`` and ``rubric``.

    Raises:
        InputError: The corpus cannot be read, ``out`` holds other labels, or the server accepts no question.
        HerdError: ``config.give_up_after`` documents in a row got no answer.
    """
    done = _resume(out, asker.model, rubric)
    chosen = _sample(corpus, config.sample, seed)
    total = sum(1 for row in read_corpus(corpus, ("id",)) if chosen is None or row["id"] in chosen)
    counts: Counter[str] = Counter(labeled=0, unparsable=0, refused=0, no_answer=0)
    in_a_row = 0
    with ExitStack() as stack:
        file = stack.enter_context(out.open("a", encoding="utf-8"))
        progress = stack.enter_context(Progress("label", total, "documents", quiet=quiet))
        progress.restore(len(done))
        waiting = (r for r in read_corpus(corpus) if r["id"] not in done and (chosen is None or r["id"] in chosen))
        for row, reply in stack.enter_context(closing(_ask_all(waiting, rubric, asker, config))):
            if isinstance(reply, NoAnswerError):
                counts[reply.fault] += 1
                in_a_row += 1
                if in_a_row >= config.give_up_after:
                    raise HerdError(
                        f"{in_a_row} documents in a row got no answer; the last error: {reply}", "Run it again later"
                    )
            else:
                in_a_row = 0
                label = _label(rubric, reply)
                counts["labeled" if "fault" not in label else UNPARSABLE] += 1
                about = {"reply": reply[:KEPT_REPLY_CHARS], "model": asker.model, "rubric": rubric.digest}
                label_row = {"id": row["id"], "language": row["language"]} | label | about
                file.write(json.dumps(label_row, ensure_ascii=True) + "\n")
                file.flush()
            progress.advance(1, f"{counts[UNPARSABLE]} unparsable")
        os.fsync(file.fileno())
    return {"documents": total, "labeled_before": len(done), **counts, "retries": asker.retries}


def _ask_all(
    rows: Iterator[dict[str, Any]], rubric: Rubric, asker: Asker, config: LabelConfig
) -> Generator[tuple[dict[str, Any], str | NoAnswerError], None, None]:
    """Yield each row with its reply, in order, with ``config.concurrency`` pending questions at a time."""
    under_way: deque[tuple[dict[str, Any], Future[str]]] = deque()
    with ThreadPoolExecutor(config.concurrency) as pool:
        try:
            for row in rows:
                messages = rubric.messages(row.pop("text")[: config.max_chars])
                under_way.append((row, pool.submit(asker.ask, messages)))
                if len(under_way) >= AHEAD * config.concurrency:
                    yield _reply(*under_way.popleft())
            while under_way:
                yield _reply(*under_way.popleft())
        finally:
            asker.stop()
            for _, future in under_way:
                future.cancel()


def _reply(row: dict[str, Any], future: Future[str]) -> tuple[dict[str, Any], str | NoAnswerError]:
    try:
        return row, future.result()
    except NoAnswerError as error:
        return row, error


def _label(rubric: Rubric, reply: str) -> dict[str, Any]:
    answer = rubric.parse(reply)
    if answer is None:
        return {"fault": UNPARSABLE}
    return {"score": int(answer)} if rubric.scores else {"label": answer}


def _sample(corpus: Path, count: int, seed: int) -> set[str] | None:
    """Return the ids of ``count`` documents, which do not depend on their order, or None for all."""
    if not count:
        return None
    ids = (row["id"] for row in read_corpus(corpus, ("id",)))
    return set(heapq.nsmallest(count, ids, key=lambda id_: (derive_seed(seed, "label", id_), id_)))


def _resume(out: Path, model: str, rubric: Rubric) -> set[str]:
    """Return the ids that ``out`` has labels of, and remove an incomplete last line.

    Raises:
        InputError: The labels are by another model or rubric.
        DamagedError: It is not a file of labels.
    """
    if not out.exists():
        return set()
    whole = out.read_bytes()
    end = whole.rfind(b"\n") + 1
    try:
        rows = [json.loads(line) for line in whole[:end].splitlines()]
        done = {row["id"]: (row["model"], row["rubric"]) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{out} is not a file of labels that `herdlm label` wrote", "Give another file") from error
    others = set(done.values()) - {(model, rubric.digest)}
    if others:
        other, digest = min(others)
        by = f"model {other}" if other != model else f"another rubric ({digest})"
        raise InputError(f"{out} holds labels by {by}", "Give a new file")
    if end < len(whole):
        os.truncate(out, end)
    return set(done)
