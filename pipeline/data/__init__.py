"""From shards to batches on the device.

``loader`` chooses the loader: ``mapped`` (npy shards in a folder), in memory, or ``streaming`` (any address).
``sampler`` decides which samples make up a batch; ``augment`` prepares a batch for the objective, with random numbers
of ``counter_rng``. ``shard_reader`` opens a set of shards, ``remote_file`` reads one file behind an address, and
``shard_checks`` finds damaged shards before the first step.
"""
