"""What clients were asked for, on disk before it is asked.

Where clients draw secret noise, a round that is cut short and made again is released twice: the
rows, which know finished rounds only, would count it once.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from phoenix_pipeline.checkpoints import read_json, write_json
from phoenix_pipeline.federated.history import History

LEDGER_FILE = "asked.json"


class Ledger:
    """Rounds and steps by client that were ever asked for, finished or not."""

    def __init__(self, file: Path, before: History) -> None:
        """Go on with ``file``; without one, with the finished rounds of ``before``.

        Raises CheckpointError when the file is broken.
        """
        self._file = file
        self.rounds = Counter(before.rounds_asked)
        self.steps = Counter(before.steps_asked)
        if file.exists():
            stored = read_json(file)
            self.rounds = Counter({int(client): n for client, n in stored["rounds"].items()})
            self.steps = Counter({int(client): n for client, n in stored["steps"].items()})

    def begin(self, steps: Mapping[int, int]) -> None:
        """Charge one more round of ``steps`` by client; on disk when this returns.

        Raises StorageError when it cannot be written: then nothing may be asked.
        """
        self.rounds.update(list(steps))
        self.steps.update(steps)
        write_json(self._file, {"rounds": self.rounds, "steps": self.steps})
