"""Deduplication kernels: exact hashes, MinHash signatures and their buckets, repeated paragraphs, keepers."""
