"""From a catalogue of images to finished shards: planned, made by worker processes, resumable after any interruption.

For other rooms: `build.build` with `options.BuildOptions`, `output.Output` and `executors.choose_executor`.
"""
