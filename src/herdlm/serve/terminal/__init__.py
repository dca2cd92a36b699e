"""``herdlm chat`` and ``herdlm generate`` in the terminal."""
