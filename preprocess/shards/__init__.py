"""The format of shards on disk: written, read, listed in a manifest, and verified (docs/formats.md).

For other rooms: `manifest.Manifest`, `reader.ShardSet`, `annotations.SampleTable`, `storage.open_shard_files`,
`verify.verify`, `tar.read_members`, `atomic.replace_file` and `contact_sheet.contact_sheet`. Import them from their
files, so that a command loads no more than it needs.
"""
