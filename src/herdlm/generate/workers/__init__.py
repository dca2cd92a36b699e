"""Engines in processes of this machine or on a cluster, among which a pool divides requests."""
