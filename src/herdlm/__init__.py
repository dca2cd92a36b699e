"""herdlm raises a herd of Llama-class language models: raw web pages in, a served chat model out."""

__version__ = "0.1.0"
