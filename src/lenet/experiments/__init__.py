"""What experiments publish: ladder, sizes, frontier, paper."""
