"""Beam pipelines that build a corpus: from public data to filtered and unfiltered token shards."""
