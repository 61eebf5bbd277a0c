"""Mutated files against every reader of the package; behind tools/fuzz.py and tests/fuzz.

:mod:`a2d_d2.fuzz.mutations` makes the files, :mod:`a2d_d2.fuzz.targets` says who reads them and
what must hold, :mod:`a2d_d2.fuzz.campaign` runs them in a child process. Needs hypothesis, which
``make venv`` installs.
"""
