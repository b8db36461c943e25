"""The format of shards on disk: written, read, listed in a manifest, and verified (docs/formats.md)."""
