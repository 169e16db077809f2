"""Sweeps: grids of ordinary Kedro runs, resumable, ending in a table and heat maps."""
