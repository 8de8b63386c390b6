"""`lenet sweep`: Optuna's studies, each a function of its settings and its seed, whoever computes it and however often
it is interrupted. The only part that imports optuna.

Read in this order: ``settings`` (what may stand in ``sweep`` of params.yaml), ``space`` (names, ranges and choices; a
trial's block), ``study`` (what is asked, and what is pruned: functions of the batches before), ``storage`` (where
trials are kept), ``trial`` (executes one), ``coordinator`` (asks, batch by batch), ``display``, ``result`` (what is
published of a study), ``report`` (what mattered in it), ``promote`` (the winner into params.yaml), ``job`` (a study
from its settings to what is published of it).
"""
