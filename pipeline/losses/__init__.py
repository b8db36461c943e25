"""The training loss: ``objective`` (reconstruction and regularizer), ``mmd`` (of the global batch), ``kernels``.

A new loss goes into ``objective``, a new kernel into ``kernels``.
"""
