"""Requests to refuse, and harmless ones that sound alike."""
