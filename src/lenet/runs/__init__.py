"""A run in files: its record, and one checked reader of each kind of file beside it."""
