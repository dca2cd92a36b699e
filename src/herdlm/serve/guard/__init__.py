"""A guard model that judges prompts and answers."""
