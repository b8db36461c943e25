"""The report: one self-contained page about one or more checkpoints, with metrics.json and the figures beside it.

``report`` measures and writes, ``page`` renders ``templates``, and ``layer_summary`` says in plain words what each
layer holds, for the model card and the explorer too.
"""
