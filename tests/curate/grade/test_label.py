"""Labels by a language model over servers that fail in every way, and over our own."""

from __future__ import annotations

import email.utils
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from herdlm.base.errors import DamagedError, HerdError, InputError
from herdlm.curate.grade.ask import Asker, NoAnswerError
from herdlm.curate.grade.config import LabelConfig
from herdlm.curate.grade.label import label_corpus
from herdlm.curate.grade.labels import read_labels
from herdlm.curate.grade.rubric import load_rubric
from tests.curate.grade.badly_behaved import Reply, Request, says, server

QUALITY = load_rubric("quality")
CHAT = [{"role": "user", "content": "Well?"}]
FAST = LabelConfig(first_wait_seconds=0.01, timeout_seconds=5, concurrency=3)


def make_corpus(folder: Path, count: int = 12) -> Path:
    rows = [{"id": f"doc-{i:02}", "text": f"This is document {i:02}.", "language": "en"} for i in range(count)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "documents.parquet")
    return folder


def number(request: Request) -> int:
    """The number of the document that a question is about."""
    return int(request.question.partition("document ")[2][:2])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def label(corpus: Path, address: str, config: LabelConfig = FAST, model: str = "judge", **more: Any) -> dict[str, Any]:
    return label_corpus(
        corpus, QUALITY, Asker(address, model, config), corpus / "labels.jsonl", config, quiet=True, **more
    )


def test_every_document_is_labeled_in_order_and_several_are_under_way_at_once(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        reply = says(f"So so.\nAnswer: {number(request) % 6}")
        reply.delay = 0.2 if number(request) == 0 else 0.05
        return reply

    with server(answer) as running:
        counts = label(make_corpus(tmp_path), running.address)
    rows = read(tmp_path / "labels.jsonl")
    assert [(row["id"], row["score"]) for row in rows] == [(f"doc-{i:02}", i % 6) for i in range(12)]
    assert {(row["model"], row["rubric"], row["language"]) for row in rows} == {("judge", QUALITY.digest, "en")}
    assert counts == {
        "documents": 12,
        "labeled_before": 0,
        "labeled": 12,
        "unparsable": 0,
        "refused": 0,
        "no_answer": 0,
        "retries": 0,
    }
    assert 1 < running.most_at_once <= 3
    body = running.requests[0].body
    assert body["model"] == "judge" and body["temperature"] == 0 and body["messages"][0]["content"] == QUALITY.text
    assert running.requests[0].path == "/v1/chat/completions"


def test_failures_are_tried_again_and_answers_that_cannot_be_read_are_counted_and_not_guessed(tmp_path: Path) -> None:
    seen: dict[int, int] = {}
    failures = {
        0: Reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "0"}),
        1: Reply({"error": {"message": "broken"}}, 500),
        2: Reply(b"<html>no JSON</html>"),
        3: Reply({"choices": []}),
        4: Reply(says("Answer: 5").body, cut=True),
        5: Reply(b"", 503),
        6: Reply([1, 2, 3]),
    }
    nonsense = {7: "I would rather not say.", 8: "Answer: 17", 9: None}

    def answer(request: Request) -> Reply:
        at = number(request)
        seen[at] = seen.get(at, 0) + 1
        if at in failures and seen[at] <= 2:
            return failures[at]
        return says(nonsense[at]) if at in nonsense else says("Answer: 3")

    with server(answer) as running:
        counts = label(make_corpus(tmp_path), running.address)
    assert (counts["labeled"], counts["unparsable"], counts["retries"]) == (9, 3, 14)
    rows = read(tmp_path / "labels.jsonl")
    assert [row["id"] for row in rows if row.get("fault") == "unparsable"] == ["doc-07", "doc-08", "doc-09"]
    assert all("score" not in row for row in rows if "fault" in row)
    labels = read_labels(tmp_path / "labels.jsonl", tmp_path)
    assert (len(labels.texts), labels.unanswered, labels.unmatched) == (9, 3, 0)
    assert labels.texts[0].text == "This is document 00." and labels.texts[0].label == 3.0


class Unhurried(Asker):
    """Tells the seconds that it would have waited between tries, and waits none."""

    def __init__(self, address: str, model: str, config: LabelConfig) -> None:
        super().__init__(address, model, config)
        self.waits: list[float] = []
        self._server._stop = self

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return False


@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_that_says_when_to_come_back_is_heeded(as_date: bool) -> None:
    def answer(request: Request) -> Reply:
        if request.number:
            return says("Answer: 1")
        soon = email.utils.formatdate(time.time() + 3600, usegmt=True) if as_date else "7"
        return Reply({}, 429, {"Retry-After": soon})

    config = FAST.model_copy(update={"max_wait_seconds": 86400})
    with server(answer) as running:
        asker = Unhurried(running.address, "judge", config)
        assert asker.ask(CHAT) == "Answer: 1"
    (waited,) = asker.waits
    assert 3000 < waited <= 3600 if as_date else waited == 7


def test_waits_double_and_end_at_the_limit() -> None:
    config = LabelConfig(tries=5, first_wait_seconds=0.1, max_wait_seconds=0.3)
    with server(lambda request: Reply({}, 500, {"Retry-After": "3600"} if request.number == 3 else {})) as running:
        asker = Unhurried(running.address, "judge", config)
        with pytest.raises(NoAnswerError, match="HTTP 500") as caught:
            asker.ask(CHAT)
        assert len(running.requests) == 5
    assert caught.value.fault == "no_answer"
    assert asker.waits == [0.1, 0.2, 0.3, 0.3]


@pytest.mark.parametrize("slow", [Reply({}, delay=1.5), Reply(b"x" * 500, trickle=0.01)])
def test_a_slow_server_costs_no_more_than_the_timeout(slow: Reply) -> None:
    config = LabelConfig(tries=2, first_wait_seconds=0, timeout_seconds=0.3)
    with server(lambda request: slow) as running:
        with pytest.raises(NoAnswerError, match="time|long"):
            Asker(running.address, "judge", config).ask(CHAT)
        assert len(running.requests) == 2


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404])
def test_a_wrong_key_address_or_model_stops_the_run_at_once(tmp_path: Path, status: int) -> None:
    reply = Reply({"error": {"message": "not for you"}}, status, {"Location": "http://127.0.0.1:9/elsewhere"})
    with server(lambda request: reply) as running:
        with pytest.raises(InputError, match=f"HTTP {status}: not for you"):
            label(make_corpus(tmp_path, 40), running.address)
        assert len(running.requests) <= 4 * FAST.concurrency


def test_a_document_that_the_server_refuses_is_counted_and_asked_for_again_next_time(tmp_path: Path) -> None:
    refuse = True

    def answer(request: Request) -> Reply:
        if refuse and number(request) == 3:
            return Reply({"error": {"message": "too long"}}, 400)
        return says("Answer: 2")

    corpus = make_corpus(tmp_path)
    with server(answer) as running:
        assert label(corpus, running.address)["refused"] == 1
        assert "doc-03" not in {row["id"] for row in read(tmp_path / "labels.jsonl")}
        refuse, before = False, len(running.requests)
        counts = label(corpus, running.address)
        assert len(running.requests) == before + 1
    assert (counts["labeled_before"], counts["labeled"]) == (11, 1)


def test_a_dead_server_ends_the_run_and_a_later_run_goes_on(tmp_path: Path) -> None:
    alive = True

    def answer(request: Request) -> Reply:
        return says(f"Answer: {number(request) % 6}") if alive and number(request) < 6 else Reply({}, 502)

    corpus = make_corpus(tmp_path, 20)
    config = LabelConfig(tries=2, first_wait_seconds=0, concurrency=2, give_up_after=4)
    with server(answer) as running, pytest.raises(HerdError, match="4 documents in a row got no answer.*HTTP 502"):
        label(corpus, running.address, config)
    labels = tmp_path / "labels.jsonl"
    assert len(read(labels)) == 6
    labels.write_bytes(labels.read_bytes()[:-7])  # as a killed run leaves it
    with server(lambda request: says(f"Answer: {number(request) % 6}")) as running:
        counts = label(corpus, running.address)
        asked = sorted(number(request) for request in running.requests)
    assert asked == list(range(5, 20)) and counts["labeled_before"] == 5
    assert [(row["id"], row["score"]) for row in read(labels)] == [(f"doc-{i:02}", i % 6) for i in range(20)]


def test_nobody_at_the_address_is_no_answer() -> None:
    with server(lambda request: says("")) as running:
        address = running.address
    with pytest.raises(NoAnswerError, match="refused"):
        Asker(address, "judge", LabelConfig(tries=2, first_wait_seconds=0)).ask(CHAT)


def test_labels_of_another_model_or_file_are_not_added_to(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    with server(lambda request: says("Answer: 2")) as running:
        label(corpus, running.address)
        with pytest.raises(InputError, match="holds labels by model judge"):
            label(corpus, running.address, model="another")
        (tmp_path / "labels.jsonl").write_text('{"key": "value"}\n')
        with pytest.raises(DamagedError, match="not a file of labels"):
            label(corpus, running.address)


def test_a_sample_is_the_same_whatever_the_order_and_a_larger_one_holds_it(tmp_path: Path) -> None:
    chosen = {}
    with server(lambda request: says("Answer: 2")) as running:
        for count in (4, 8):
            (tmp_path / "labels.jsonl").unlink(missing_ok=True)
            label(make_corpus(tmp_path), running.address, LabelConfig(sample=count))
            chosen[count] = {row["id"] for row in read(tmp_path / "labels.jsonl")}
    assert len(chosen[4]) == 4 and chosen[4] < chosen[8] and len(chosen[8]) == 8


def test_the_key_comes_from_the_environment_and_is_sent_as_a_bearers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HERDLM_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with server(lambda request: says("yes")) as running:
        Asker(running.address, "judge", FAST).ask(CHAT)
        monkeypatch.setenv("OPENAI_API_KEY", "second")
        Asker(running.address, "judge", FAST).ask(CHAT)
        monkeypatch.setenv("HERDLM_API_KEY", "first")
        Asker(running.address, "judge", FAST).ask(CHAT)
        keys = [request.headers.get("Authorization") for request in running.requests]
    assert keys == [None, "Bearer second", "Bearer first"]
    monkeypatch.setenv("HERDLM_API_KEY", "two\nlines")
    with pytest.raises(InputError, match="API key"):
        Asker("http://127.0.0.1/v1", "judge", FAST)
    with pytest.raises(InputError, match="not the address"):
        Asker("file:///etc/hostname", "judge", FAST)
