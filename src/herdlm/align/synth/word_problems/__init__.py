"""Arithmetic word problems with worked steps."""
