"""A Grid over the workers of this machine: messages out, replies back in order, a time limit.

What a worker does with a message is up to the engine (``_call``). Replies come in the order of the
messages, so that sums do not depend on who finishes first.
"""

import logging
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import chain, islice, pairwise
from queue import SimpleQueue
from typing import Self
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from phoenix_pipeline.federated.sites import CLIENT_ID

logger = logging.getLogger(__name__)

_EXIT_WAIT_S = 60.0
_STILL_AT_WORK = "still at work for an earlier round"


class Task:
    """Messages of one worker, and their replies; ``abandoned``: nobody waits for these."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self.replies: Future[list[Message]] = Future()
        self.abandoned = False


class LocalGrid:
    """Keeps ``workers`` clients at work, a context manager; node ``client_id + 1`` is a client."""

    def __init__(self, client_ids: Iterable[int], workers: int, together: int = 1) -> None:
        self._clients = {client_id + 1: client_id for client_id in client_ids}
        self._workers = workers
        self._together = together
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._hanging: dict[int, Task] = {}
        # Flower's Message() asks who it is; outside a SuperLink nobody has told it.
        TaskIdentity.run_id, TaskIdentity.task_id = 1, 1
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def __enter__(self) -> Self:
        for _ in range(self._workers):
            self._start_worker()
        return self

    def __exit__(self, *_: object) -> None:
        while not self._tasks.empty():
            self._tasks.get()
        for _thread in self._threads:
            self._tasks.put(None)
        for thread in self._threads if not self._hanging else []:
            thread.join(_EXIT_WAIT_S)

    @property
    def clients(self) -> dict[int, int]:
        """Client id by node id."""
        return dict(self._clients)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield the reply to each message, in the order of the messages.

        A message for each worker lies ready, so that none waits while the caller is busy with a
        reply. Behind a slow client at most ``2 * workers`` replies wait in memory; when half of
        the time is gone the others go ahead without it, so that one that hangs costs the round
        only itself.
        """
        queue, sent = self._portions(list(messages)), deque[Task]()
        start = time.monotonic()
        while True:
            passed = time.monotonic() - start
            left = float("inf") if timeout is None else timeout - passed
            if left <= 0:
                yield from self._close_round(sent, queue, passed)
                return
            patient = timeout is None or left > timeout / 2
            running = [task.replies for task in sent if not task.replies.done()]
            room = 2 * self._workers - len(running)
            if patient:
                room = min(room, 3 * self._workers - len(sent))
            sent.extend(self._send(portion) for portion in islice(queue, max(0, room)))
            if not sent:
                return
            if sent[0].replies.done():
                yield from sent.popleft().replies.result()
                continue
            waking = (left - timeout / 2 if patient else left) if timeout else None
            wait([t.replies for t in sent if not t.replies.done()], waking, FIRST_COMPLETED)

    @abstractmethod
    def _call(self, message: Message, context: Context) -> Message:
        """Return the reply of the client that ``context`` belongs to; runs in a worker."""

    def _call_together(
        self, messages: Sequence[Message], contexts: Sequence[Context]
    ) -> Iterable[Message]:
        """Return the replies to ``messages``, in order; an engine may answer them as one."""
        return [self._call(m, context) for m, context in zip(messages, contexts, strict=True)]

    def _prepare_worker(self) -> None:
        """Set up the calling thread; runs once in each worker."""

    def _abandon(self, task: Task) -> bool:
        """End the work on ``task``; return whether the engine could."""
        return False

    def _portions(self, messages: list[Message]) -> Iterator[list[Message]]:
        """Yield what a worker is given at one go; the same for the same number of messages."""
        size = min(self._together, -(-len(messages) // self._workers)) or 1
        portions = max(1, -(-len(messages) // size))
        bounds = [len(messages) * number // portions for number in range(portions + 1)]
        yield from (messages[a:b] for a, b in pairwise(bounds) if a < b)

    def _send(self, messages: list[Message]) -> Task:
        """Give ``messages`` to a worker; a client still at work for an earlier round gets none."""
        task = Task(messages)
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            # A record dictionary of its own: messages of a round share their records.
            message.content = RecordDict(dict(message.content))
            node_id = message.metadata.dst_node_id
            # Its thread has come back.
            if node_id in self._hanging and self._hanging[node_id].replies.done():
                del self._hanging[node_id]
        if all(message.metadata.dst_node_id in self._hanging for message in messages):
            task.replies.set_result([_error(message, _STILL_AT_WORK) for message in messages])
        else:
            self._tasks.put(task)
        return task

    def _close_round(
        self, sent: Collection[Task], unsent: Iterable[list[Message]], passed: float
    ) -> Iterator[Message]:
        """Yield what is there and an error for the rest; who hangs is left behind."""
        # What no worker has begun is called off first: the workers started below would begin it.
        late = [task for task in sent if not task.replies.done() and not task.replies.cancel()]
        for task in late:
            task.abandoned = True
            if not self._abandon(task):
                hanging = (message.metadata.dst_node_id for message in task.messages)
                self._hanging.update(dict.fromkeys(hanging, task))
            self._start_worker()
        for task in sent:
            if task.abandoned or task.replies.cancelled():
                yield from (_error(m, f"no reply within {passed:.0f} s") for m in task.messages)
            else:
                yield from task.replies.result()
        for message in chain.from_iterable(unsent):
            yield _error(message, f"its turn did not come within {passed:.0f} s")

    def _start_worker(self) -> None:
        # Threads that do not keep the process from ending: a client may hang for ever.
        thread = threading.Thread(target=self._work, name="client", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        self._prepare_worker()
        while task := self._tasks.get():
            if not task.replies.set_running_or_notify_cancel():
                continue
            try:
                task.replies.set_result(self._answer(task.messages))
            except BaseException as error:
                task.replies.set_exception(error)
            if task.abandoned:
                return

    def _answer(self, messages: list[Message]) -> list[Message]:
        """Return the replies in order; who is still at work for an earlier round gives an error."""
        busy = [message.metadata.dst_node_id in self._hanging for message in messages]
        free = [message for message, hangs in zip(messages, busy, strict=True) if not hangs]
        replies = iter(self._call_together(free, [self._context(message) for message in free]))
        answers = [
            _error(message, _STILL_AT_WORK) if hangs else next(replies)
            for message, hangs in zip(messages, busy, strict=True)
        ]
        for reply in answers:
            reply.metadata.__dict__["_message_id"] = str(uuid4())
        return answers

    def _context(self, message: Message) -> Context:
        node_id = message.metadata.dst_node_id
        # Ray's side of Flower reads a partition id.
        client_id = self._clients[node_id]
        config = {CLIENT_ID: client_id, "partition-id": client_id}
        return Context(1, node_id, config, RecordDict(), {})


def _error(message: Message, reason: str) -> Message:
    return Message(Error(ErrorCode.UNKNOWN, reason), reply_to=message)
