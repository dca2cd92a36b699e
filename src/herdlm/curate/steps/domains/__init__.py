"""Labels what a text is about, and caps the share that each domain has of the corpus."""
