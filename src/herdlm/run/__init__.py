"""From a recipe to stages to manifests: what runs, in which order, what is already there, and where it came from."""
