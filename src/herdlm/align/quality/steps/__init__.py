"""The steps of quality control, each a rule with its keys."""
