"""Folders and archives that hold image files: listed once, read by many workers.

`container.Container` is what they have in common. `container.open_container` chooses one by looking at the file.
"""
