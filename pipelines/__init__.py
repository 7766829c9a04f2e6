"""Raw datasets to records to shards: one file per raw format in `sources/`, one per transform in `transforms/`."""
