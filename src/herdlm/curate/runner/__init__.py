"""Two ways to run the same functions over the same shards: processes on this machine, or a Ray cluster."""
