"""A page where one draws a digit, and trained networks answer: one file, without a server and without a network.

``network.js`` is the project's arithmetic once more, in the browser's own numbers, with the same bits.
"""
