"""Pre-training one model: batches, mixes, long context, distillation."""
