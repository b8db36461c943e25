"""The network: the variational ladder autoencoder, its blocks, its latents, and conversions of pixels.

Import names from their files: ``vlae`` (``VLAE``, ``Posterior``), ``latents``, ``pixels``, ``blocks``, ``pretrained``.
"""
