"""What ``tests/test_child_process.py`` calls in another process, which has to find it by name."""

import logging
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

from phoenix_pipeline.hardware import available_cores, available_memory

logger = logging.getLogger("phoenix_pipeline.tests")


class AwkwardError(Exception):
    """Cannot be read back: its constructor wants two values, and it keeps one."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def work(tensor: Tensor, tell: Callable[..., None], count: Callable[[int], None]) -> Tensor:
    logger.info("%s rows", len(tensor))
    logger.debug("nobody reads this")
    for number in range(3):
        tell(number, {"loss": 0.5 * number})
        count(1)
    return 2 * tensor


def fail(error: Exception) -> None:
    raise error


def fail_awkwardly() -> None:
    raise AwkwardError("no ", "luck")


def share() -> tuple[int, int, int]:
    return os.getpid(), available_cores(), available_memory(torch.device("cpu"))


def sleep(say: Callable[[], None]) -> None:
    say()
    time.sleep(60)
