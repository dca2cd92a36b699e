"""Pages of documentation whose content is known: all text but what their generator's navigation selectors name."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

PAGES_PER_GENERATOR = 7
# What is not content, by the first part of a documentation page's host name.
NAVIGATION = {
    "apache2": "#page-header, #path, .toplang, .bottomlang, #quickview, .top, #footer, .up",
    "sqlite3": ".nosearch, .menu, .searchmenu, #menu_mobile, .rightsidebar, #searchmenu, .fancy_toc, .toct, .hlist",
    "python-django": "#hd, .nav, #sidebar, #ft, .contents.topic, #docs-nav",
    "python3": ".related, .sphinxsidebar, .footer, .mobile-nav, #searchbox, .menu-wrapper, .topnav",
    "nodejs": "#column2, #toc, .toc, header, .picker-header, #gtoc",
    "debian-policy": ".related, .sphinxsidebar, .footer, .rst-footer-buttons, footer, .navheader, .navfooter, "
    ".toc, .navigation",
    "debian-faq": ".navheader, .navfooter, .toc",
    "bash": ".header, .nav-panel, .contents, .Contents_element, .mini-toc",
    "debian-handbook": ".docnav, #title, .toc, #navigation, nav",
    "installation": ".navheader, .navfooter, .toc",
}


def read_documents(files: Sequence[Path]) -> Iterator[tuple[str, str, str]]:
    """Yield HTML, HTML without navigation, and host of a few pages of each documentation generator."""
    from fastwarc.warc import ArchiveIterator
    from selectolax.lexbor import LexborHTMLParser

    found: dict[str, list[tuple[str, bytes]]] = {generator: [] for generator in NAVIGATION}
    for file in files:
        with file.open("rb") as stream:
            for record in ArchiveIterator(stream, parse_http=True):
                host = urlsplit(record.headers.get("WARC-Target-URI") or "").hostname or ""
                for generator in NAVIGATION:
                    if host.startswith(generator):
                        found[generator].append((host, record.reader.read()))
    draw = random.Random(3)
    for generator, records in sorted(found.items()):
        for host, payload in draw.sample(records, min(len(records), PAGES_PER_GENERATOR)):
            html = payload.decode("utf-8", "replace")
            tree = LexborHTMLParser(html)
            for node in tree.css(NAVIGATION[generator]):
                node.decompose()
            yield html, tree.html or "", host
