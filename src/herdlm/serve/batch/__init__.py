"""Answers a file of prompts with any number of engines: see :func:`herdlm.serve.batch.run.generate_batch`."""
