"""The example of docs/scaling.md prints what the page says."""

from tests.run.conftest import ROOT


def test_the_example_prints_what_the_page_says(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    printed = page.split("```text\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/scaling.md", "exec"), {})
    assert capsys.readouterr().out == printed
