"""Stage ``shared_pool``: what each client trains on."""
