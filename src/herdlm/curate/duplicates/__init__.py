"""Removal of what is repeated: older versions of pages, equal texts, near-equal texts, lines that many pages share.

All are pure functions on numpy arrays of 64-bit keys and row numbers; texts are never moved or compared. ``index.py``
alone touches the disk: it remembers a corpus, so that a later crawl can be freed of what the corpus has.
"""
