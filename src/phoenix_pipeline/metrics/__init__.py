"""How good samples are: feature extractors, distances, coverage of classes, memorisation."""
