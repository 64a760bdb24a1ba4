"""What a filter is worth: the same model trained on filtered and unfiltered documents at equal compute, with controls."""
