"""Who may ask, and how much: keys, limits, middleware, the request log."""
