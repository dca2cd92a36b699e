"""Evaluates models: perplexity, multiple choice, needles in long text, divergence, intervals."""
