"""Programming problems whose solutions pass tests in the sandbox."""
