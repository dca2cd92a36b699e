"""The commonest function words of the languages that curation can keep, and how those languages are written.

A page of running text holds several of its language's function words whatever it is about; a page of navigation, tables
or code does not. To support one more language, add its row: its ISO 639-1 code and some twenty of its commonest words
that are not also common words of a neighbouring language's table. Languages in ``UNSPACED`` are written without spaces
between words; their "words" here are single characters.
"""

from __future__ import annotations

STOP_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "ca": "de la que el i en un una per amb els les del és no al com més però són aquest ser pot això",
        "cs": "a je se na v že to do s z pro jako ale které nebo jsou by jeho být po tak při může který",
        "da": "og i at det en er til på af den for der med som ikke et de har kan hvis fra eller vil også",
        "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus "
        "er hat dass sie nach wird bei oder wenn kann einer sind diese",
        "en": "the of and to a in is that for it as was with be by on not he his are this at from or have an which you "
        "can if will has but they their your when there been we",
        "es": "de la que el en y a los del se las por un para con no una su al lo como más o pero sus le es este si "
        "puede ser son esta cuando también sobre",
        "fr": "de la le et les des en un du une que est pour qui dans par sur au pas ce plus il ne se sont vous avec "
        "ou son cette être peut aux si ces comme",
        "it": "di e che la il un a per in una del è con non i le da si dei nel alla più della come sono questo o può "
        "essere se gli anche",
        "ja": "の に は を た が で て と し れ さ い も な す る ま こ か ら",
        "nl": "de van het een en in is dat op te zijn met voor niet die aan er om ook als bij of door kan worden deze "
        "wordt naar uit maar",
        "pl": "w i na z do się nie to jest że o od jak za po przez dla są oraz lub może tym który być tego",
        "pt": "de a que o e do da em um para com não uma os no se na por mais as dos como mas ao ou são pode ser está "
        "este esta seu quando",
        "ru": "и в не на что с по как это для из или от к за он то при может если так но его также все можно до",  # noqa: RUF001
        "sv": "och i att det som en på är av för med den till inte ett om har de kan från eller du vid men så ska "
        "detta när",
        "tr": "ve bir bu için ile de da olarak olan daha çok gibi en ne kadar veya her değil ya ise sonra olduğu",
        "zh": "的 是 在 了 不 和 有 这 一 个 为 中 以 用 可 来 到 上 或 会 要 于 这 您 你",
    }.items()
}

UNSPACED = frozenset({"ja", "zh"})
