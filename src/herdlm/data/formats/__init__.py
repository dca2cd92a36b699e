"""The forms that rows have, a file for each family."""
