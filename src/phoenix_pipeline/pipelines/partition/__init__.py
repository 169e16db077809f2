"""Stage ``partition``: images and who holds them."""
