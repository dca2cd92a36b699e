"""The work of a run's stages, a screen each."""
