"""The steps of curation. Each file or folder is a step: its rule, its keys, its adapter. ``contents.py`` lists them."""
