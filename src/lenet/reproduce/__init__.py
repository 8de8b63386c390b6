"""Whether runs are the same: `lenet rerun`, `verify`, `doctor`, `diff` and `clean`. All ask evaluation/judge.py.

A rerun repeats a tracked run from its own sources, parameters and data. Read it in this order: ``sources`` (commit or
snapshot), ``workplace`` (where they run, apart from everything of the user's), ``preflight`` (what is known to differ
beforehand), ``evidence`` (what a run was made of and what came of it), ``verdict`` (the grade, where the two part, and
why), ``rerun`` (all of it in order), ``many`` (several at once).
"""
