"""What the project warned of while something was measured."""

import logging
from types import TracebackType
from typing import Self


class WarningsKept(logging.Handler):
    """Collects the project's warnings in ``lines`` while it is entered."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(record.getMessage())

    def __enter__(self) -> Self:
        logging.getLogger("phoenix_pipeline").addHandler(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        logging.getLogger("phoenix_pipeline").removeHandler(self)
