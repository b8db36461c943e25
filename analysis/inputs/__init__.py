"""Inputs: what is analyzed.

`context.py` opens a checkpoint beside its shards; `encode.py` loads the images, annotations and codes of a split once;
`image_files.py` reads a user's own pictures. Import from these files: this package itself loads nothing.
"""
