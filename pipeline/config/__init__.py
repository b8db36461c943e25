"""The recipe of a run: its sections with every key, and how it is loaded and overridden.

For other rooms: `schema.Config`, its sections and `schema.ConfigError`; `load.resolve`, `load.build_config`,
`load.flat_values`, `load.changed_values` and `load.to_yaml`. Nothing here imports torch.
"""
