"""What carries the messages between server and clients; one module per ``federation.engine``.

An engine is one function, ``train``: it makes the clients reachable and runs the program of
``federated.program`` over them.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.program import Watch

Train = Callable[[FederatedJob, Path, Watch], FederatedResult]

_MODULES = {"in_process": "in_process", "ray": "ray_actors", "deployment": "deployment"}


def load_engine(name: str) -> Train:
    """Return the engine ``name``; only the module of that one is imported."""
    module = import_module(f"phoenix_pipeline.federated.engines.{_MODULES[name]}")
    train: Train = module.train
    return train
