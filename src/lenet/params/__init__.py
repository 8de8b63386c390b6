"""params.yaml as checked, frozen values."""
