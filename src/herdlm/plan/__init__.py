"""What a recipe costs and whether it fits, before anything runs."""
