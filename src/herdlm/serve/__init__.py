"""Uses of a model: an OpenAI-compatible server, terminal chat, single answers and files of prompts, on one engine."""
