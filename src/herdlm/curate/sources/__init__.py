"""Where pages come from: files of many formats, planned into shards and read shard by shard."""
