"""Worker processes, one per model, and the server's connection to them."""
