"""Access: API keys, limits, the middleware that enforces them, and the request log."""
