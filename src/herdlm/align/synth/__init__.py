"""Makes training data: each generator with a verifier that sees everything before it is written."""
