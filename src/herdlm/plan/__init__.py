"""Plans a run before it starts: its cost, whether models fit a node, and the files that launch it on a cluster."""
