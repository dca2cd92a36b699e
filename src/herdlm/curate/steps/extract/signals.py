"""Signals in names and words: classes, ids and roles of elements, and keywords of boilerplate in several languages.

Each group of signals is a bit of a mask. An element's mask comes from its own attributes, and its content inherits it.
Whether a bit speaks for or against content is learned by the model (``weights.json``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

# Groups of names, as patterns for a lower-case word of a class, id, role or itemprop ("relatedPosts" has two).
NAMES: dict[str, str] = {
    "article": r"article|story|^posts?$|entry|artikel|articulo|artigo|noticia|materia|^blog|^news$",
    "body": r"body|content|^text|main|inhalt|contenido|conteudo|contenu|corpo|prose|markdown|^rich|^copy$",
    "comment": r"comment|disqus|respon[ds]|^repl|kommentar|comentario|livefyre|^coral|thread",
    "related": r"relat|recommend|similar|verwandt|popular|trend|latest|recent|^more|^next|^also|suggest|recirc|outbrain"
    r"|taboola|zergnet|revcontent|teaser|promo|mostread|^most|jp",
    "list": r"card|feed|^lists?$|river|stream|grid|carousel|slider|rollup|tease|headlines|stories",
    "social": r"social|shar(?:e|ing)|facebook|twitter|follow|whatsapp|addthis|addtoany|^like",
    "navigation": r"^nav|nav$|menu|breadcrumb|pagin|pager|^toc$|contents$|masthead|topbar|toolbar|skip|search"
    r"|headerlink"
    r"|anchor|permalink|toplang|bottomlang|^path$",
    "header": r"header|^head$|^top$|banner|logo|brand",
    "footer": r"foot|copyright|legal|colophon|imprint|disclaimer",
    "side": r"side|aside|rail$|widget|secondary|complementary|right",
    "advert": r"^ads?$|^adv|^ad[a-z]*(?:slot|unit|wrap)|advert|sponsor|dfp|^gpt|publicid|werbung|anzeige"
    r"|affiliate|commerce"
    r"|product|^buy",
    "subscribe": r"newsletter|subscri|sign|paywall|login|regist|modal|popup|cookie|consent|gdpr|overlay|donat"
    r"|^cta$|dialog",
    "byline": r"byline|author|autor|^bio$|contributor|vcard|writer|reporter",
    "date": r"date|^time|publish|timestamp|^meta|^info$",
    "media": r"caption|figure|photo|image|galler|media|video|slide|credit|thumb|player|audio|embed|picture|^img",
    "tags": r"^tags?$|categor|keyword|topic|label|kicker|eyebrow",
    "title": r"title|headline|heading|^hed$|titulo|titre",
    "summary": r"summar|^lead|intro|^dek$|subtitle|subhead|standfirst|excerpt|abstract|description|highlights",
    "code": r"highlight$|^code|source|listing|example|snippet|literal|screen|syntax|verbatim",
    "section": r"^sect|chapter|admonition|^note$|warning|^tip$|document|refsect|definition|function|method",
    "quote": r"quote|^pull|callout|factbox|infobox|inset|tweet",
    "paragraph": r"^para|paragraph|^zn$",
    "answer": r"answer|question|message|usertext|^msg",
    "unseen": r"hidden|^sr$|reader$|noprint|collapse",
    "structured": r"^structured$",
    "contents": r"^toc$|^toctree",
}
# Keywords of boilerplate in English, German, French, Spanish, Portuguese, Italian, Dutch, Indonesian, Russian.
WORDS: dict[str, str] = {
    "share": "share shares tweet facebook twitter whatsapp pinterest linkedin instagram telegram email mail "
    "print teilen partager "
    "compartir compartilhar compartilhe condividi delen bagikan поделиться follow like save reddit "
    "tumblr flipboard",
    "subscribe": "subscribe subscription subscriber subscribers newsletter newsletters login sign register "
    "abonnieren abonner abonnez "
    "suscríbete suscribirse inscreva assine iscriviti anmelden registrieren подписаться inbox "
    "alerts download app trial "
    "cookie cookies privacy adblock adblocker notifications unlimited",
    "related": "related read more also recommended trending popular latest next previous watch lesen lire aussi "
    "leia mais lea también "
    "leggi anche baca juga lees читайте click continue continued keep discover explore missed "
    "verwandte siehe ähnliche",
    "comment": "comment comments reply replies kommentar kommentare comentário comentários comentario "
    "comentarios commentaire "
    "commentaires commenti komentar комментарии commenting discussion join conversation",
    "rights": "© copyright rights reserved rechte droits derechos direitos terms published redistributed "
    "reproduced broadcast "
    "contributed associated press reuters getty afp ap courtesy credit credits image images photo "
    "photos source disclaimer foto pic picture photograph",
    "byline": "by von por par oleh writer reporter editor correspondent written author staff автор redaktion "
    "redação autor posted",
    "date": "jan january feb february mar march apr april may jun june jul july aug august sep sept september "
    "oct october nov november "
    "dec december updated published modified ago pm am hours minutes mins monday tuesday wednesday "
    "thursday friday saturday "
    "sunday est edt gmt pst januar februar märz juni juli oktober dezember janvier février enero febrero",
    "advert": "advertisement advertising advertise sponsored promoted anzeige werbung publicidad publicité "
    "publicidade реклама affiliate "
    "shop buy deal deals price sale commission amazon",
    "tags": "tags tag filed topics topic categories category labels label keywords schlagwörter etiquetas",
    "contact": "contact tips tip questions phone tel reach reached reporting writing correction corrections "
    "suggest feedback originally appeared syndicated",
    "view": "views view loading enlarge slideshow gallery video play close expand show hide toggle menu skip "
    "top home search min "
    "minute scroll caption swipe full screen volume",
    "first": "i me my we our you your us",
}
TAGS = (
    "article",
    "main",
    "section",
    "aside",
    "nav",
    "header",
    "footer",
    "form",
    "figure",
    "table",
    "ul",
    "ol",
    "li",
    "blockquote",
    "pre",
    "dl",
    "details",
    "figcaption",
    "address",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "td",
    "button",
    "noscript",
)
SIGNALS = (*NAMES, *(f"<{tag}>" for tag in TAGS), "articleBody", "main", "hidden")
BIT = {name: 1 << number for number, name in enumerate(SIGNALS)}
TAG_BIT = {tag: BIT[f"<{tag}>"] for tag in TAGS}
ROLES = {
    "main": "main",
    "navigation": "<nav>",
    "contentinfo": "<footer>",
    "complementary": "<aside>",
    "search": "navigation",
    "article": "<article>",
    "dialog": "subscribe",
    "alert": "subscribe",
}
_ATTRIBUTE = re.compile(
    r'\b(class|id|role|itemprop|style|hidden|aria-hidden|data-component|data-testid|data-type)="([^"]*)"'
)
_STREAMED = re.compile(r'\bid="[SBP]:[0-9a-f]+"')  # React shows these parts when all of the page has come
_PATTERNS = [(BIT[name], re.compile(pattern)) for name, pattern in NAMES.items()]
_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_WORD = re.compile(r"[^\W\d_]+|©")
WORD_BIT: dict[str, int] = {}
for _number, _words in enumerate(WORDS.values()):
    for _word in _words.split():
        WORD_BIT[_word] = WORD_BIT.get(_word, 0) | 1 << _number
_SET_WORDS = frozenset(WORD_BIT)
_SET_ASCII_WORDS = frozenset(word.encode() for word in WORD_BIT if word.isascii())
# Maps ASCII text without zero bytes to lower-case letters and spaces.
_LETTERS = bytes(ord(c.lower()) if c.isalpha() or c == "\0" else ord(" ") for c in map(chr, range(128))) + b" " * 128
LONGEST_NAME = 24


def word_bits(*groups: str) -> int:
    """Return the mask of groups of keywords."""
    return sum(1 << list(WORDS).index(group) for group in groups)


@lru_cache(maxsize=1 << 16)
def _name_signals(name: str) -> int:
    lower = name.lower()
    mask = 0
    for bit, pattern in _PATTERNS:
        if pattern.search(lower):
            mask |= bit
    return mask


@lru_cache(maxsize=1 << 14)
def attribute_signals(attributes: str, with_id: bool) -> int:
    """Return the mask of an element's attributes, given as in its serialized tag.

    Documentation makes the ids of sections and headings from their titles; without ``with_id``, ids do not count.
    """
    mask = 0
    for key, value in _ATTRIBUTE.findall(attributes):
        if key == "id" and not with_id:
            continue
        if key == "style":
            if "none" in value and "display" in value:
                mask |= BIT["hidden"]
            continue
        if key == "aria-hidden":
            mask |= BIT["unseen"] if value != "false" else 0
            continue
        if key == "hidden":
            mask |= BIT["hidden"] if value not in ("false", "until-found") and not _STREAMED.search(attributes) else 0
            continue
        if key == "role":
            mask |= BIT[ROLES[value]] if value in ROLES else 0
        elif key == "itemprop" and "articleBody" in value:
            mask |= BIT["articleBody"]
        for name in _NAME.findall(value[:200]):
            if 2 <= len(name) <= LONGEST_NAME:
                mask |= _name_signals(name)
    return mask


def word_signals(texts: Sequence[str]) -> list[int]:
    """Return the masks of keywords in short texts."""
    plain = iter("\0".join(filter(str.isascii, texts)).encode().translate(_LETTERS).split(b"\0"))
    masks = []
    for text in texts:
        mask = 0
        if text.isascii():
            for ascii_word in _SET_ASCII_WORDS.intersection(next(plain).split()):
                mask |= WORD_BIT[ascii_word.decode()]
        else:
            for word in _SET_WORDS.intersection(_WORD.findall(text.lower())):
                mask |= WORD_BIT[word]
        masks.append(mask)
    return masks
