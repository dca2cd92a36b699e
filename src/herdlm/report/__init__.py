"""Reports: HTML pages for people beside JSON files for machines."""
