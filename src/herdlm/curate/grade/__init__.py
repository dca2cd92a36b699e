"""Labels documents with a language model, and trains and evaluates graders and domain classifiers."""
