"""Stage ``sampling``: from a model to images."""
