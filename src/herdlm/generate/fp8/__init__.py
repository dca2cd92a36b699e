"""FP8: quantizing weights, and linear layers that compute in it."""
