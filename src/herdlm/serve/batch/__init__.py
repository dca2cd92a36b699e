"""Prompts of a file answered by any number of engines: see :func:`herdlm.serve.batch.run.generate_batch`."""
