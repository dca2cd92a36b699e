"""Language identification."""

from __future__ import annotations

import pytest

from herdlm.curate.language import WINDOW_CHARS, check_language, identify, windows

SENTENCES = {
    "en": "The package manager reads the list of files and asks the administrator what to do with those that changed. ",
    "de": "Die Paketverwaltung liest die Liste der Dateien und fragt, was mit den geänderten geschehen soll. ",
    "fr": "Le gestionnaire de paquets lit la liste des fichiers et demande que faire de ceux qui ont changé. ",
    "es": "El gestor de paquetes lee la lista de archivos y pregunta qué hacer con los que han cambiado. ",
    "ja": "パッケージ管理システムはファイルの一覧を読み、変更されたものをどうするか管理者に尋ねます。",
}


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("times", [1, 60])
def test_identify(language: str, times: int) -> None:
    found, score = identify(SENTENCES[language] * times)
    assert found == language
    assert score > 0.65


def test_a_page_of_two_languages_is_uncertain() -> None:
    text = SENTENCES["de"] * 20 + SENTENCES["en"] * 40
    found, score = identify(text)
    assert found == "en"
    assert score < 0.7


def test_windows_cover_start_and_end() -> None:
    text = " ".join(map(str, range(2000, 4000)))
    start, middle, end = windows(text)
    assert text.startswith(start)
    assert text.endswith(end)
    assert abs(text.index(middle) - (len(text) - WINDOW_CHARS) / 2) <= 1
    assert len(start) == len(middle) == len(end) == WINDOW_CHARS
    assert windows("short") == ["short"]


def test_check_language() -> None:
    assert check_language("en", 0.9, ("en", "de"), 0.65) is None
    assert check_language("fr", 0.9, ("en", "de"), 0.65) == "other_language"
    assert check_language("en", 0.6, ("en", "de"), 0.65) == "uncertain_language"
