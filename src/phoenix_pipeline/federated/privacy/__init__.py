"""Differential privacy: accounting, and what the server and the clients do for it."""
