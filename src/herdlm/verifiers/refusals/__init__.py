"""Tells refusals from answers by the phrases of several languages, which the files beside this one list."""
