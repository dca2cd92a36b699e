"""Post-training in rounds: preference data, reward model, rejection sampling, fine-tuning, DPO, and teaching."""
