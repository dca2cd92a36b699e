"""New tasks in the manner of given ones."""
