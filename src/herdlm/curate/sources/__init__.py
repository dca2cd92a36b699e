"""Reads pages from files of many formats: finds the files, divides them into shards, and reads the shards."""
