"""What a federated algorithm adds to averaging; each algorithm is one file.

A strategy works on tensors by name and knows neither Flower nor the kind of model. The federation
carries what it sends, keeps what it keeps, and calls it (``federated/``).
"""

from phoenix_pipeline.strategies.strategy import ClientView, ServerView, Strategies, Strategy

__all__ = ["ClientView", "ServerView", "Strategies", "Strategy"]
