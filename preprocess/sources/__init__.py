"""What can be turned into shards. Each source is one file that makes a `Catalogue`."""
