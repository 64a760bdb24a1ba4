"""Sparse mixture-of-experts language models on the shards, the filtered-against-unfiltered comparison, and scaling laws."""
