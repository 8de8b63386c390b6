"""Digits: from MNIST's files to tensors, their order and their distortions."""
