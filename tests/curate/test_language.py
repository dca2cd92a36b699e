"""Language identification."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from herdlm.base.errors import InputError
from herdlm.curate.orthography import LANGUAGES
from herdlm.curate.steps import language as identification
from herdlm.curate.steps.language import EXCERPT_CHARS, EXCERPTS, LanguageConfig, check_language, identify, sample

SENTENCES = {
    "en": "The package manager reads the list of files and asks the administrator what to do with those that changed. ",
    "de": "Die Paketverwaltung liest die Liste der Dateien und fragt, was mit den geänderten geschehen soll. ",
    "fr": "Le gestionnaire de paquets lit la liste des fichiers et demande que faire de ceux qui ont changé. ",
    "es": "El gestor de paquetes lee la lista de archivos y pregunta qué hacer con los que han cambiado. ",
    "ru": "Менеджер пакетов читает список файлов и спрашивает, что делать с теми, которые изменились. ",
    "zh": "软件包管理器读取文件列表，并询问管理员如何处理已更改的文件。",
    "ar": "يقرأ مدير الحزم قائمة الملفات ويسأل المسؤول عما يجب فعله بالملفات التي تغيرت. ",
    "hi": "पैकेज प्रबंधक फ़ाइलों की सूची पढ़ता है और पूछता है कि बदली हुई फ़ाइलों का क्या करना है। ",
    "ko": "패키지 관리자는 파일 목록을 읽고 변경된 파일을 어떻게 할지 관리자에게 묻습니다. ",
    "el": "Ο διαχειριστής πακέτων διαβάζει τη λίστα αρχείων και ρωτά τι να κάνει με όσα άλλαξαν. ",
    "th": "ตัวจัดการแพ็กเกจอ่านรายการไฟล์และถามผู้ดูแลระบบว่าจะทำอย่างไรกับไฟล์ที่เปลี่ยนแปลง",
    "ja": "パッケージ管理システムはファイルの一覧を読み、変更されたものをどうするか管理者に尋ねます。",
}


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("times", [1, 60])
def test_identify(language: str, times: int) -> None:
    found, score = identify(SENTENCES[language] * times)
    assert found == language
    assert score > 0.65


def test_a_page_of_two_languages_scores_lower() -> None:
    pure = identify(SENTENCES["de"] * 60)[1]
    found, score = identify(SENTENCES["de"] * 20 + SENTENCES["en"] * 40)
    assert found in ("de", "en")
    assert score < 0.65 < pure
    korean = identify(SENTENCES["ko"] * 20 + SENTENCES["en"] * 5)
    assert korean[0] == "ko"
    assert 0.5 < korean[1] < 0.9


def test_text_without_letters_has_no_language() -> None:
    for text in ("", "\n", "123 456", "… — !", "\0"):
        assert identify(text) == ("", 0.0)


@given(st.text(max_size=80))
def test_every_answer_is_a_known_language_with_a_probability(text: str) -> None:
    language, score = identify(text)
    assert language in LANGUAGES or (language == "" and score == 0)
    assert 0 <= score <= 1


def test_the_sample_covers_start_and_end() -> None:
    text = " ".join(map(str, range(2000, 4000)))
    pieces = sample(text)
    assert pieces.startswith(text[:EXCERPT_CHARS])
    assert pieces.endswith(text[-EXCERPT_CHARS:])
    assert len(pieces) == EXCERPTS * (EXCERPT_CHARS + 1) - 1
    assert sample("short") == "short"


def test_check_language() -> None:
    config = LanguageConfig(keep=("en", "de", "no"), thresholds={"de": 0.9})
    assert check_language("en", 0.5, config) is None
    assert check_language("fr", 0.99, config) == "other_language"
    assert check_language("en", 0.49, config) == "uncertain_language"
    assert check_language("de", 0.89, config) == "uncertain_language"
    assert check_language("de", 0.9, config) is None
    assert check_language("no", 0.4, config) is None  # Danish takes its share of every Norwegian page
    assert check_language("no", 0.39, config) == "uncertain_language"


def test_thresholds_are_checked() -> None:
    with pytest.raises(ValidationError, match="'xx' is not supported"):
        LanguageConfig(thresholds={"xx": 0.5})
    with pytest.raises(ValidationError, match="not between 0 and 1"):
        LanguageConfig(thresholds={"en": 1.5})
    with pytest.raises(ValidationError, match="'xx' is not supported"):
        LanguageConfig(keep=("xx",))


def test_a_wrong_or_missing_model_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identification._model.cache_clear()
    monkeypatch.setattr(identification, "MODEL", tmp_path / "lid.176.ftz")
    with pytest.raises(InputError, match="cannot be read"):
        identify("some text")
    (tmp_path / "lid.176.ftz").write_bytes(b"another")
    with pytest.raises(InputError, match=r"not the published lid\.176\.ftz"):
        identify("some text")


CAPITALS = {
    "en": "THE SPOKES ON THE LEFT PULL THE RIM TO THE LEFT, AND THOSE ON THE RIGHT PULL IT TO THE RIGHT.",
    "de": "DIE LINKEN SPEICHEN ZIEHEN DIE FELGE NACH LINKS, DIE RECHTEN NACH RECHTS. MAN PRÜFT DIE WIRKUNG.",
    "fr": "LES RAYONS DE GAUCHE TIRENT LA JANTE VERS LA GAUCHE, ET CEUX DE DROITE LA TIRENT VERS LA DROITE.",
    "pl": "LEWE SZPRYCHY CIĄGNĄ OBRĘCZ W LEWO, A PRAWE W PRAWO. ZWYKLE WYSTARCZA ĆWIERĆ OBROTU KLUCZA.",
    "pt": "UMA BOA EXPERIENCIA",
    "tr": "SOLDAKİ TELLER JANTI SOLA, SAĞDAKİLER SAĞA ÇEKER. GENELLİKLE ÇEYREK TUR YETER.",
    "ru": "ЛЕВЫЕ СПИЦЫ ТЯНУТ ОБОД ВЛЕВО, А ПРАВЫЕ ВПРАВО. ЗА ОДИН РАЗ ХВАТАЕТ ЧЕТВЕРТИ ОБОРОТА.",
}


@pytest.mark.parametrize("language", CAPITALS)
def test_capitals_are_read_as_small_letters(language: str) -> None:
    code, score = identify(CAPITALS[language])
    assert code == language and score > 0.6
    half = " ".join(word.upper() if i % 2 else word.lower() for i, word in enumerate(CAPITALS[language].split()))
    assert identify(half)[0] == language
