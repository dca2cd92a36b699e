"""Removal of repeated documents: equal texts first, then near-equal ones."""
