"""Raw pages to clean documents, one file per step."""
