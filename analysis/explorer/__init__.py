"""The page of ``analysis explore``: sliders for each layer, swaps, arithmetic, interpolation (needs the extra explore).

``faces`` computes pictures and knows nothing of the page; ``page`` lays out the page; ``serve`` starts it.
"""
