"""A trained network in use: the packaged model, and pictures of digits made ready for it."""
