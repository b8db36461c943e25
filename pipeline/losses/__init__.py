"""The training loss: ``objective`` (all terms), ``reconstruction``, ``mmd`` (of the global batch), ``kernels``.

A new term goes into ``objective``, a new kernel into ``kernels``.
"""
