"""Turns face images (or digits) into training shards. The only package of the three that imports no other."""
