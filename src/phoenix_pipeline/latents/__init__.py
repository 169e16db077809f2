"""Latents: images as an autoencoder of diffusers writes them, to be learnt in place of pixels."""
