"""Stage ``evaluation``: from images to scores."""
