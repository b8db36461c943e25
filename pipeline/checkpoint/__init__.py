"""Checkpoints: the file and its checksum, when one is written, and everything about resuming a run.

For other rooms: `file.load_vlae` (the trained model), `file.read_checkpoint`, `file.CheckpointError`,
`manager.CheckpointManager`, `manager.newest_valid` and `resume.resume_run`. `untrusted` checks files before they are
loaded. Import them from their files.
"""
