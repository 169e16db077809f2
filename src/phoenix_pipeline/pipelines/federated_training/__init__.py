"""Stage ``federated_training``: from images to a model."""
