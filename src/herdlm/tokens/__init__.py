"""From text to batches: tokenizer, chat format, shards, packing, loaders."""
