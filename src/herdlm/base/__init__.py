"""What every layer stands on: errors, artifacts, events, progress, seeds, the recipe."""
