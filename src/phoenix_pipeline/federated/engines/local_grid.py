"""A Grid over the workers of this machine: messages out, replies back in order, a time limit.

What a worker does with a message is up to the engine (``_call``). Replies come in the order of the
messages, so that sums do not depend on who finishes first.
"""

import logging
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from queue import SimpleQueue
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from phoenix_pipeline.federated.engines.message_grid import MessageGrid
from phoenix_pipeline.federated.sites import CLIENT_ID

logger = logging.getLogger(__name__)

_EXIT_WAIT_S = 60.0


class Task:
    """One message at a worker; ``abandoned`` is set when nobody waits for its reply any more."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.reply: Future[Message] = Future()
        self.abandoned = False


class LocalGrid(MessageGrid):
    """Keeps ``workers`` clients at work; use as a context manager.

    Node ``client_id + 1`` is client ``client_id``, since Flower keeps node 1 and up for clients.
    """

    def __init__(self, client_ids: Iterable[int], workers: int) -> None:
        self._run = Run.create_empty(run_id=1)
        self._clients = {client_id + 1: client_id for client_id in client_ids}
        self._workers = workers
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._hanging: dict[int, Task] = {}
        self._replies: dict[str, Message] = {}
        # Flower's Message() asks who it is; outside a SuperLink nobody has told it.
        TaskIdentity.run_id, TaskIdentity.task_id = 1, 1
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def __enter__(self) -> "LocalGrid":
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

    def set_run(self, run: Run) -> None:
        """Set the run that this grid belongs to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that this grid belongs to."""
        return self._run

    @property
    def clients(self) -> dict[int, int]:
        """Client id by node id."""
        return dict(self._clients)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._clients)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield the reply to each message, in the order of the messages.

        A message for each worker lies ready, so that none waits while the caller is busy with a
        reply. Behind a slow client at most ``2 * workers`` replies wait in memory; when half of
        the time is gone the others go ahead without it, so that one that hangs costs the round
        only itself.
        """
        queue, sent = iter(messages), deque[Task]()
        start = time.monotonic()
        while True:
            passed = time.monotonic() - start
            left = float("inf") if timeout is None else timeout - passed
            if left <= 0:
                yield from self._close_round(sent, queue, passed)
                return
            patient = timeout is None or left > timeout / 2
            running = [task.reply for task in sent if not task.reply.done()]
            room = 2 * self._workers - len(running)
            if patient:
                room = min(room, 3 * self._workers - len(sent))
            sent.extend(self._send(message) for message in islice(queue, max(0, room)))
            if not sent:
                return
            if sent[0].reply.done():
                yield sent.popleft().reply.result()
                continue
            waking = (left - timeout / 2 if patient else left) if timeout else None
            wait([t.reply for t in sent if not t.reply.done()], waking, FIRST_COMPLETED)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run each message's client and keep the reply for :meth:`pull_messages`."""
        sent = list(messages)
        replies = self.send_and_receive(sent)
        self._replies.update(
            {m.metadata.message_id: reply for m, reply in zip(sent, replies, strict=True)}
        )
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there, each once."""
        return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    @abstractmethod
    def _call(self, message: Message, context: Context) -> Message:
        """Return the reply of the client that ``context`` belongs to; runs in a worker."""

    def _prepare_worker(self) -> None:
        """Set up the calling thread; runs once in each worker."""

    def _abandon(self, task: Task) -> bool:
        """End the work on ``task``; return whether the engine could."""
        return False

    def _send(self, message: Message) -> Task:
        """Give ``message`` to a worker, unless its client is still at work for an earlier round."""
        task = Task(message)
        node_id = message.metadata.dst_node_id
        message.metadata.__dict__["_message_id"] = str(uuid4())
        # A record dictionary of its own: messages of a round share their records.
        message.content = RecordDict(dict(message.content))
        if node_id in self._hanging:
            if not self._hanging[node_id].reply.done():
                task.reply.set_result(_error(message, "still at work for an earlier round"))
                return task
            del self._hanging[node_id]
        self._tasks.put(task)
        return task

    def _close_round(
        self, sent: Collection[Task], unsent: Iterable[Message], passed: float
    ) -> Iterator[Message]:
        """Yield what is there and an error for the rest; who hangs is left behind."""
        # What no worker has begun is called off first: the workers started below would begin it.
        late = [task for task in sent if not task.reply.done() and not task.reply.cancel()]
        for task in late:
            task.abandoned = True
            if not self._abandon(task):
                self._hanging[task.message.metadata.dst_node_id] = task
            self._start_worker()
        for task in sent:
            if task.abandoned or task.reply.cancelled():
                yield _error(task.message, f"no reply within {passed:.0f} s")
            else:
                yield task.reply.result()
        for message in unsent:
            yield _error(message, f"its turn did not come within {passed:.0f} s")

    def _start_worker(self) -> None:
        # Threads that do not keep the process from ending: a client may hang for ever.
        thread = threading.Thread(target=self._work, name="client", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        self._prepare_worker()
        while task := self._tasks.get():
            if not task.reply.set_running_or_notify_cancel():
                continue
            try:
                task.reply.set_result(self._answer(task.message))
            except BaseException as error:
                task.reply.set_exception(error)
            if task.abandoned:
                return

    def _answer(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        # Ray's side of Flower reads a partition id.
        client_id = self._clients[node_id]
        config = {CLIENT_ID: client_id, "partition-id": client_id}
        context = Context(1, node_id, config, RecordDict(), {})
        reply = self._call(message, context)
        reply.metadata.__dict__["_message_id"] = str(uuid4())
        return reply


def _error(message: Message, reason: str) -> Message:
    return Message(Error(ErrorCode.UNKNOWN, reason), reply_to=message)
