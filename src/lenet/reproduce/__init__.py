"""`lenet rerun`: a tracked run again, from its own sources, parameters and data; and what came out, with proof.

Read in this order: ``sources`` (commit or snapshot), ``workplace`` (where they run, apart from everything of the
user's), ``preflight`` (what is known to differ beforehand), ``evidence`` (what a run was made of and what came of it),
``verdict`` (the grade, where the two part, and why), ``again`` (all of it in order), ``many`` (several at once).
"""
