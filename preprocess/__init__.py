"""Turns face images (or digits) into training shards. The only package of the three that imports no other.

Rooms: `sources` lists the images of a data set, `containers` reads folders and archives, `images` decodes, aligns,
crops and resizes, `shards` is the format on disk, `build` makes shards, `synthetic` draws faces. The files beside them
are the command line (`cli`), the errors for users (`errors`) and the output on the terminal (`progress`).
"""
