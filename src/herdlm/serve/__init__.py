"""A model at work: an OpenAI-compatible server, a terminal client, and single answers, all on the one engine."""
