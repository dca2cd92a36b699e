"""The command line: one file per subject, thin over the library."""
