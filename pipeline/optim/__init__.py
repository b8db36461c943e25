"""How the weights change: ``optimizer`` (its construction, learning rate and growth), ``muon``, ``ema``."""
