"""One run, from the lock of its folder to its last line.

``run_training`` is the run. ``build`` makes model, optimizer and loaders; ``loop`` makes the steps and what happens
between them: ``step_metrics``, ``validation``, ``previews``. ``threads`` adapts the CPU threads to a busy machine.
"""
