"""How good a model is: instruction tasks with verifiers, pass rates with intervals, bits per byte."""
