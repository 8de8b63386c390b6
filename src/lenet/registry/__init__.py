"""Which registered network is the champion: an alias in MLflow that has to be earned on digits that nobody has seen."""
