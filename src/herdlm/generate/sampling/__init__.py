"""From logits to text: sampling parameters, drawing, grammars, detokenization."""
