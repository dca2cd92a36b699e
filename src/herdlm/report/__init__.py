"""The report of a run: what was measured, as one HTML page for people and one JSON file for machines."""
