"""Per-document judgements (language, signals, quality) and the corpus quality service."""
