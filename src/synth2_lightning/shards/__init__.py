"""On-disk formats of synthetic data: token shards, caption sets and files of image captions."""
