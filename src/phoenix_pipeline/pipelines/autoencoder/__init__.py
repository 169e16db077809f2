"""Stage ``autoencoder``: on request, an autoencoder for arms that learn latents."""
