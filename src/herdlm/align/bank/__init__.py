"""The built-in bank of small tasks: questions, checks and documents."""
