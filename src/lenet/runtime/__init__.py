"""What every part stands on: errors, files, paths, processes, the sources at hand. It knows nothing of networks."""
