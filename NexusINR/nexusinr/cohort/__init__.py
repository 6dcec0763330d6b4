"""Many subjects: BIDS (or BraTS, or a table) in, BIDS derivatives out, on Dask."""
