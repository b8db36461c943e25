"""From a catalogue of images to finished shards: planned, made by worker processes, resumable after any interruption.

For other rooms: `build.build` with `build.BuildOptions`, `remote_output.open_output` and `executors.choose_executor`.
Import them from their files: `worker` imports torch, and only worker processes need it.
"""
