"""What several steps use to find duplicates: hashes, normalized addresses, groups of rows, an index of earlier corpora.

Keys are 64-bit and rows are numbers; texts are never moved or compared. Only ``index.py`` touches the disk.
"""
