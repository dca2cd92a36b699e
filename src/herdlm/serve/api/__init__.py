"""OpenAI's API: requests in, answers and streams out."""
