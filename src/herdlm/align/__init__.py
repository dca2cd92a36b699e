"""Post-training in rounds: preferences, reward, rejection sampling, fine-tuning, DPO, and a small model's lesson."""
