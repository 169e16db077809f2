"""Engine ``in_process``: a Grid that calls the ClientApp directly, several clients at a time.

Replies come in the order of the messages, so that sums do not depend on who finishes first. Each
worker trains one client on one thread; at most ``workers`` replies wait in memory.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from uuid import uuid4

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from phoenix_pipeline.errors import PhoenixError
from phoenix_pipeline.federated.sites import CLIENT_ID

logger = logging.getLogger(__name__)


class InProcessGrid(Grid):
    """Calls ``client_app`` for every message, ``workers`` at a time; use as a context manager.

    Node ``client_id + 1`` is client ``client_id``, since Flower keeps node 1 and up for clients.
    """

    def __init__(
        self, client_app: ClientApp, client_ids: Iterable[int], workers: int, threads: int
    ) -> None:
        self._app = client_app
        self._run = Run.create_empty(run_id=1)
        self._clients = {client_id + 1: client_id for client_id in client_ids}
        self._workers = workers
        self._pool = ThreadPoolExecutor(
            workers, "client", initializer=torch.set_num_threads, initargs=(threads,)
        )
        self._replies: dict[str, Message] = {}
        # Flower's Message() asks who it is; outside a SuperLink nobody has told it.
        TaskIdentity.run_id, TaskIdentity.task_id = 1, 1
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def __enter__(self) -> "InProcessGrid":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

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

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to ``dst_node_id``."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield the reply to each message, in the order of the messages."""
        queue = iter(messages)
        running: deque[Future[Message]] = deque(
            self._pool.submit(self._call, message) for message in islice(queue, self._workers)
        )
        while running:
            reply = running.popleft().result()
            running.extend(self._pool.submit(self._call, m) for m in islice(queue, 1))
            yield reply

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

    def _call(self, message: Message) -> Message:
        """Return the client's reply, or an error reply with the reason why there is none."""
        message.metadata.__dict__["_message_id"] = str(uuid4())
        node_id = message.metadata.dst_node_id
        context = Context(1, node_id, {CLIENT_ID: self._clients[node_id]}, RecordDict(), {})
        # A record dictionary of its own: messages of a round share their records.
        message.content = RecordDict(dict(message.content))
        try:
            reply = self._app(message, context)
        except Exception as error:
            if not isinstance(error, PhoenixError):
                logger.exception("client %s failed", self._clients[node_id])
            reason = f"{type(error).__name__}: {error}"
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
        reply.metadata.__dict__["_message_id"] = str(uuid4())
        return reply
