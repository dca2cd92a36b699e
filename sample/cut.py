"""Cut the starter crawl from larger crawls: ``python sample/cut.py IN.warc.gz [IN.warc.gz ...] OUT.warc.gz``.

Pages are copied byte for byte, in the order they stand in. ``RULES`` say which: the first rule whose prefix a page's
address has keeps every n-th of the pages that fall to it; a page without a rule is left out. The rules favor prose in
English, German, French and Spanish, keep translations whose untranslated pages fall back to English (so that there are
real near-duplicates), and leave in some of what a curation pipeline exists to drop: other languages, indexes, pages of
source code, navigation without text. The output is the same bytes for the same input.
"""

from __future__ import annotations

import gzip
import io
import sys
import uuid
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

# (prefix of the address without its scheme, keep every n-th page)
RULES: list[tuple[str, int]] = [
    # English prose
    ("installation-guide-amd64.example/installation-guide-amd64/en/", 1),
    ("debian-handbook.example/debian-handbook/html/en-US/", 1),
    ("debian-faq.example/", 1),
    ("debian-policy.example/", 1),
    ("bash-doc.example/", 1),
    ("apache2-doc.example/apache2-doc/manual/en/mod/", 2),
    ("apache2-doc.example/apache2-doc/manual/en/", 1),
    ("python-django-doc.example/python-django-doc/html/topics/", 1),
    ("python-django-doc.example/python-django-doc/html/intro/", 1),
    ("python-django-doc.example/python-django-doc/html/howto/", 1),
    ("python-django-doc.example/python-django-doc/html/internals/", 1),
    ("python-django-doc.example/python-django-doc/html/faq/", 1),
    ("python-django-doc.example/python-django-doc/html/misc/", 1),
    ("python3-11-doc.example/python3.11/html/tutorial/", 1),
    ("python3-11-doc.example/python3.11/html/howto/", 1),
    ("python3-11-doc.example/python3.11/html/faq/", 1),
    ("python3-11-doc.example/python3.11/html/reference/", 1),
    ("python3-11-doc.example/python3.11/html/using/", 1),
    ("python3-11-doc.example/python3.11/html/extending/", 1),
    # German, French, Spanish, with pages that were never translated and fall back to English
    ("installation-guide-amd64.example/installation-guide-amd64/de/", 1),
    ("installation-guide-amd64.example/installation-guide-amd64/fr/", 1),
    ("installation-guide-amd64.example/installation-guide-amd64/es/", 1),
    ("debian-handbook.example/debian-handbook/html/de-DE/", 3),
    ("debian-handbook.example/debian-handbook/html/fr-FR/", 3),
    ("debian-handbook.example/debian-handbook/html/es-ES/", 3),
    ("debian-faq-de.example/", 1),
    ("debian-faq-fr.example/", 1),
    ("apache2-doc.example/apache2-doc/manual/de/howto/", 1),
    ("apache2-doc.example/apache2-doc/manual/de/rewrite/", 1),
    ("apache2-doc.example/apache2-doc/manual/de/programs/", 2),
    ("apache2-doc.example/apache2-doc/manual/fr/howto/", 1),
    ("apache2-doc.example/apache2-doc/manual/es/howto/", 1),
    ("apache2-doc.example/apache2-doc/manual/es/programs/", 2),
    # other languages
    ("installation-guide-amd64.example/installation-guide-amd64/ja/", 3),
    ("installation-guide-amd64.example/installation-guide-amd64/it/", 6),
    ("installation-guide-amd64.example/installation-guide-amd64/ru/", 6),
    ("installation-guide-amd64.example/installation-guide-amd64/zh_CN/", 6),
    ("installation-guide-amd64.example/installation-guide-amd64/sv/", 6),
    ("debian-handbook.example/debian-handbook/html/ar-MA/", 12),
    # indexes, source code, reference entries and pages with next to no text
    ("python3-11-doc.example/python3.11/html/genindex-", 4),
    ("python-django-doc.example/python-django-doc/html/_modules/", 12),
    ("python-django-doc.example/python-django-doc/html/releases/", 12),
    ("sqlite3-doc.example/sqlite3/syntax/", 6),
    ("sqlite3-doc.example/sqlite3/c3ref/", 12),
    ("sqlite3-doc.example/sqlite3/releaselog/", 12),
]


class Selection:
    """Applies ``RULES`` to addresses in the order they come."""

    def __init__(self) -> None:
        self.seen = [0] * len(RULES)

    def keeps(self, address: str) -> bool:
        page = address.partition("://")[2]
        for number, (prefix, every) in enumerate(RULES):
            if page.startswith(prefix):
                self.seen[number] += 1
                return self.seen[number] % every == 1 % every
        return False


def member(record: WarcRecord) -> bytes:
    """One WARC record as a gzip member of its own, without a time stamp."""
    plain = io.BytesIO()
    record.write(plain)
    return gzip.compress(plain.getvalue(), compresslevel=9, mtime=0)


def describe(name: str) -> WarcRecord:
    """The ``warcinfo`` record that opens the cut, with a stable id and date."""
    record = WarcRecord()
    record.init_headers(WarcRecordType.warcinfo)
    record.headers["WARC-Record-ID"] = f"<{uuid.uuid5(uuid.NAMESPACE_URL, name).urn}>"
    record.headers["WARC-Date"] = "2026-11-23T00:00:00Z"
    record.headers["WARC-Filename"] = name
    record.headers["Content-Type"] = "application/warc-fields"
    record.set_bytes_content(b"description: starter crawl of herdlm\r\nformat: WARC File Format 1.0\r\n")
    return record


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    *inputs, output = map(Path, arguments)
    selection, pages, html = Selection(), 0, 0
    with output.open("wb") as cut:
        cut.write(member(describe(output.name)))
        for path in inputs:
            with path.open("rb") as crawl:
                for record in ArchiveIterator(crawl, record_types=WarcRecordType.response, parse_http=False):
                    if selection.keeps(record.headers["WARC-Target-URI"]):
                        record.freeze()
                        pages, html = pages + 1, html + record.content_length
                        cut.write(member(record))
    print(f"{output}: {pages:,} pages, {html / 1e6:.1f} MB unpacked, {output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
