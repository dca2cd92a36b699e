"""Counts words of sexual content, by language: pages full of them are what block lists of domains missed.

The lists are our own and deliberately short: explicit words that adult sites are full of and other pages almost never
use. Words with a common second meaning are mostly left out, and a single word never drops a page, since counts per page
decide (Llama 3, section 3.1.1). English words count in every language, because adult sites everywhere use them.
"""

# ruff: noqa: RUF001
from __future__ import annotations

from functools import cache

from herdlm.curate.batch import Batch, Outcome
from herdlm.curate.step import PageStep
from herdlm.curate.words import Words

DIRTY_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": "anal blowjob blowjobs bukkake busty camgirl camgirls clit creampie cum cumming cumshot cumshots "
        "cunnilingus deepthroat dildo dildos fucked fucking gangbang gangbangs gloryhole handjob "
        "handjobs hardcore hentai horny interracial jizz masturbating masturbation milf milfs nude nudes "
        "nymphomaniac orgies orgy orgasm porn porno pornhub pornos pornstar pornstars pussies pussy "
        "rimjob sexcam sexcams slut sluts squirting threesome titties tits topless upskirt voyeur "
        "webcamsex whore xhamster xnxx xvideos xxx",
        "cs": "kunda kundy kurva mrdat mrdání píča píči porno prdel sexuální šukat šukání šuká",
        "da": "fisse fisser kneppe knepper kneppet luder onanerer patter pik porno pornofilm sexfilm",
        "de": "arschfick bumsen fick ficken fickt fotze fotzen gefickt geile geilen hure huren möse muschi "
        "nackte nutte nutten orgie porno pornofilme pornos schlampe schlampen sexfilme sexkontakte "
        "spritzt titten wichsen wichst",
        "el": "γαμάει γαμήσι γαμιέται καύλα μουνί μουνιά πίπα πορνό πουτάνα πουτάνες τσόντα τσόντες",
        "es": "chochos coño coños corridas culona culonas culos follada follando follar folla mamada mamadas "
        "masturbándose orgía pollas porno putas putitas tetas tetonas zorras",
        "fi": "alaston alastonkuvat huora huorat nussia nussii pano panna pillu pillua porno pornoa seksivideot tissit",
        "fr": "baise baiser baisée bite bites branlette chatte chattes enculer enculée fellation gicle nichons "
        "orgie porno partouze pute putes salope salopes sodomie suceuse",
        "hr": "jebanje jebati jebe kurac kurva pička pičke porno pornići sise",
        "hu": "baszás baszik basznak fasz faszt kurva kurvák pina pinák pornó pornófilmek punci szex szopás",
        "it": "bocchini bocchino cazzi cazzo culi fica fighe figa pompini pompino porche porno puttana puttane "
        "scopa scopare scopata sborra sborrata tette troia troie zoccole",
        "nl": "geil geile hoer hoeren kutje kutjes lul neuken neukt pijpen pijpt porno pornofilms sletje slet "
        "sletten tieten",
        "no": "fitte fitter hore kåt knulle knuller knullet kuk onani porno pupper",
        "pl": "cipa cipki cipka cipkę cycki dupa dupy dziwka dziwki jebać kurwa kurwy pieprzy pierdoli porno "
        "ruchanie rucha ruchają seksfilmy",
        "pt": "boceta bocetas buceta bucetas bunda bundas foda fodas fodendo foder gostosas peitos piroca "
        "porno pornô punheta putaria putas safadas transando xoxota",
        "ro": "curve curva fută fut fute futut muie pizda pizdă porno pula sâni țâțe",
        "ru": "анал блядь бляди влагалище ебать ебет ебут ебля кончил минет оргия пизда пизду порево порно "
        "порнуха сиськи соски сперма сосет трах трахает трахают трахать хуй член шлюха шлюхи эротика",
        "sv": "fitta fittor hora horor knulla knullar knullad kuk kåt onanerar porr porrfilm porrfilmer runkar tuttar",
        "tr": "amcık fahişe götten orospu porno pornosu seks sikiş sikişen sikişme sikiyor siken taşak yarak yarrak",
        "uk": "анал блядь ебати їбати мінет оргія пизда порно сиськи сперма трахає трахати хуй шлюха еротика",
        "ar": "سكس نيك طيز كس زب شرموطة شراميط بورنو اباحية محارم",
        "fa": "سکس سکسی کیر کون کوس جنده پورن پورنو",
        "hi": "चुदाई चोदना चूत लंड भोसड़ी रंडी सेक्सी पोर्न गांड चोदा",
        "id": "bokep bugil jembut kontol memek mesum ngentot ngewe porno telanjang toket",
        "vi": "địt đụ lồn buồi cặc dâm phimsex sex jav khiêudâm",
        "ja": "エロ動画 無修正 巨乳 中出し フェラ オナニー セックス おまんこ 人妻 痴女 アダルト動画 潮吹き",
        "ko": "야동 섹스 자위 보지 자지 포르노 야설 성인동영상 노모 딸감",
        "th": "หนังโป๊ คลิปโป๊ เย็ด ควย หี เงี่ยน คลิปหลุด หนังเอ็กซ์",
        "zh": "成人视频 色情 做爱 无码 巨乳 口交 自慰 肛交 淫水 鸡巴 裸聊 三级片 色情片 成人影片 淫荡",
    }.items()
}
# Scripts without spaces, and Korean, which attaches particles to words: terms of two characters or more match anywhere
ANYWHERE = frozenset({"ja", "ko", "th", "zh"})
_SPLIT = bytes(byte if byte >= 0x80 or chr(byte).isalnum() else 0x20 for byte in range(256))
_PUNCTUATION = "\u201c\u201d\u201e\u2018\u2019«»\u2026\u2013\u2014¡¿·•،؛؟。、\uff01\uff1f\uff08\uff09"


class DirtyWords(PageStep):
    """Sets ``dirty_words`` to their number in each text, for the hosts step. Drops nothing; the heuristics do."""

    name, filters = "dirty_words", False

    def run(self, batch: Batch) -> Outcome:
        texts = zip(batch["text"], batch["language"], batch["split"], strict=True)
        counts = [dirty_words(text, language, words) for text, language, words in texts]
        return Outcome([None] * len(counts), {"dirty_words": counts})


def dirty_words(text: str, language: str, words: Words | None = None) -> int:
    """Return how many words of ``text`` are in the list of its language or the English one.

    Whole words count. In the languages of ``ANYWHERE``, the terms of their own list count wherever they occur.
    ``words`` are those of the text, if available.
    """
    words = words or Words(text)
    # A listed word is also a normalized one, since the same characters separate both
    count = 0 if _listed(language).isdisjoint(words.vocabulary) else _count(text, language)
    if language in ANYWHERE:
        count += sum(map(_without_punctuation(text).count, DIRTY_WORDS[language]))
    return count


def _count(text: str, language: str) -> int:
    listed = {word.encode() for word in _listed(language)}
    words = _without_punctuation(text).encode("utf-8", "replace").translate(_SPLIT).split()
    return sum(word in listed for word in words)


def _without_punctuation(text: str) -> str:
    text = text.lower()
    if not text.isascii():
        for mark in _PUNCTUATION:
            text = text.replace(mark, " ")
    return text


@cache
def _listed(language: str) -> frozenset[str]:
    return DIRTY_WORDS["en"] | (frozenset() if language in ANYWHERE else DIRTY_WORDS.get(language, frozenset()))
