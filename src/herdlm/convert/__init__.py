"""Model folders from and into the formats of other programs, tokenizer included."""
