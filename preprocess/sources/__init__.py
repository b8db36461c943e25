"""The data sets that can become shards. Each source is one file that lists its images and makes a `Catalogue`.

For other rooms: `index.Catalogue`, `index.seeded_rank`, `celeba.open_celeba`, `images.open_images`, `mnist.open_mnist`
and the finders of the sources beside them. Import them from their files, so that `--help` loads no more than it needs.
"""
