"""The project's one arithmetic: exact sums, and functions made of single IEEE operations.

It knows nothing of networks. Whatever a training, an evaluation or a disturbance computes, it computes with this: the
same bits on any processor, with any number of threads, on any version of torch that passes ``conformance.check``.
"""
