"""What every layer stands on: errors, artefacts, events, progress, seeds, the recipe."""
