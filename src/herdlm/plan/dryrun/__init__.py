"""Dry run: the real code of one rank of any layout, on tensors without values and a process group without processes."""
