"""Models in processes of their own, and the way to them."""
