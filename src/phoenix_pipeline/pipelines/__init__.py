"""The Kedro stages: each folder has ``pipeline.py`` (wiring) and ``nodes.py`` (thin functions)."""
