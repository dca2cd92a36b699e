"""The OpenAI API: request bodies, responses and streams."""
