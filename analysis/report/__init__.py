"""The report: one self-contained page about one or more checkpoints, with metrics.json and the figures beside it.

``report`` measures and writes, ``page`` renders ``templates``, ``layer_summary`` says in plain words what each layer
holds, ``provenance`` says what was trained on what, and ``sliders`` makes the frames that the page moves.
"""
