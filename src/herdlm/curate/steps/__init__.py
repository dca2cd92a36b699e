"""The steps of curation, one file each. A step is a pure function on a batch; ``contents.py`` lists them in order."""
