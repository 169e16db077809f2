"""No network, and one thread for all tests: the same numbers everywhere, no spinning.

On two busy cores a small network trains twenty times slower with two threads than with one.
"""

import gc
import os
from collections.abc import Iterator

import pytest

from phoenix_pipeline.offline import stay_offline

os.environ.setdefault("OMP_NUM_THREADS", "1")
stay_offline()


def pytest_collection_finish() -> None:
    """Leave what the libraries consist of out of every search for garbage: it stays anyway."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let it go: libraries say at the end what of them was not cleaned up."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _threads_are_given_back() -> Iterator[None]:
    """One test that left torch two threads made those after it take twenty times as long."""
    import torch  # after the threads are set above

    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before
