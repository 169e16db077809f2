"""The Grid of a deployment: a SuperLink's, made to answer in order and for every message."""

import logging
import secrets
import time
from collections.abc import Iterable, Iterator

import httpx
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from phoenix_pipeline.federated.site_errors import reason_of

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_NONCE = "nonce"


class NodeGrid:
    """Yields replies in the order of the messages, one in memory at a time.

    The others wait at the SuperLink. A reply that is not there in time, or that the SuperLink
    answers in place of a node, becomes an error of that node. No text of an error is passed on.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that are connected."""
        return sorted(self._grid.get_node_ids())

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield the reply to each message, in the order of the messages."""
        start = time.monotonic()
        sent = [(message, self._send(message)) for message in messages]
        for message, message_id in sent:
            reply = self._await(message_id, start, timeout) if message_id else None
            if reply is None:
                waited = f"no reply within {time.monotonic() - start:.0f} s"
                yield _failure(message, waited if message_id else "could not be reached")
            elif not isinstance(reply, Message):
                yield _failure(message, "its reply cannot be read")
            elif reply.has_error():  # The node's, or the SuperLink's in its place.
                yield _failure(message, reason_of(reply.error))
            elif reply.metadata.src_node_id != message.metadata.dst_node_id:
                yield _failure(message, "its reply cannot be read")
            else:
                yield reply

    def _send(self, message: Message) -> str | None:
        # The SuperLink checks a node's key, not whether it answers its own message: who knows the
        # id, a checksum of the message, may. So each has 128 bits that nobody else can know.
        nonce = ConfigRecord({"value": secrets.token_bytes(16)})
        message.content = RecordDict({**message.content, _NONCE: nonce})
        try:
            ids = list(self._grid.push_messages([message]))
        except httpx.HTTPError as error:
            logger.warning("a message was not taken: %s", _first_line(error))
            return None
        return ids[0] if ids else None

    def _await(self, message_id: str, start: float, timeout: float | None) -> object:
        """Return the reply, None if it is late; a SuperLink that is restarted is waited for.

        What a node sent is built anew from its bytes: it may be no message at all.
        """
        while True:
            late = timeout is not None and time.monotonic() - start >= timeout
            try:
                if replies := list(self._grid.pull_messages([message_id])):
                    return replies[0]
            except httpx.HTTPError as error:
                # Asking again is of no use: the run was stopped, say.
                if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                    raise
                logger.warning("no answer from the SuperLink: %s", _first_line(error))
            except Exception as error:
                logger.warning("a reply cannot be read: %s", type(error).__name__)
                return error
            if late:
                return None
            time.sleep(_POLL_S)


def _failure(message: Message, reason: str) -> Message:
    return Message(Error(ErrorCode.UNKNOWN, reason), reply_to=message)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
