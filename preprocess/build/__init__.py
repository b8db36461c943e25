"""From a catalogue to finished shards: planned, made by worker processes, resumable after any interruption."""
