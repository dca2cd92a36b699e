"""Policy gradient on prompts with checkable answers (GRPO)."""
