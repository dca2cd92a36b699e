"""``herdlm label`` against our own server."""

from __future__ import annotations

import json

import pytest

from herdlm.base.errors import InputError
from herdlm.cli.app import app

RUBRIC = "Good?\n\n## Answers\n\n- `0`: no\n- `1`: yes\n"


def test_a_models_nonsense_is_counted_and_too_long_questions_are_refused(server, tmp_path, capsys) -> None:
    (tmp_path / "rubric.md").write_text(RUBRIC)
    texts = ["The disk is full.", "A user may list the files.", "It's simple. " * 60]
    rows = [json.dumps({"id": str(i), "text": text}) for i, text in enumerate(texts)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows))

    def label(model: str, out: str) -> None:
        arguments = [
            "label",
            str(tmp_path / "corpus.jsonl"),
            "--rubric",
            str(tmp_path / "rubric.md"),
            "--out",
            str(tmp_path / out),
            "--address",
            server.url,
            "--model",
            model,
            "--set",
            "max_tokens=8",
            "--json",
        ]
        app(arguments, standalone_mode=False)

    label("flagship", "labels.jsonl")
    counts = json.loads(capsys.readouterr().out)
    assert (counts["unparsable"], counts["refused"], counts["labeled"]) == (2, 1, 0)
    written = (tmp_path / "labels.jsonl").read_text().splitlines()
    assert [json.loads(line)["fault"] for line in written] == ["unparsable"] * 2
    with pytest.raises(InputError, match="nobody"):
        label("nobody", "others.jsonl")
