"""Metrics and intervals on arrays; knows NumPy, SciPy, numba and pandas only (and `merlin.compiled`)."""
