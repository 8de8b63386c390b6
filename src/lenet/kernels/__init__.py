"""The arithmetic in loops that Numba compiles for the processor at hand, for networks/fast.py.

``compiling`` says what the compiler may change, ``steps`` has the steps on single numbers, ``layers`` the loops.
"""
