"""What the pipelines beside the root's publish: ladder, sizes, frontier, paper."""
