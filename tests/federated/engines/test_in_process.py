"""The in-process Grid with real ClientApps that raise, hang and come back."""

import threading
import time

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from phoenix_pipeline.federated.engines.in_process import InProcessGrid
from phoenix_pipeline.federated.sites import CLIENT_ID


def ask(grid: InProcessGrid, timeout: float | None = None) -> list[float | str]:
    """Return each client's answer, or why there is none, in the clients' order."""
    messages = [Message(RecordDict(), node, "query") for node in grid.clients]
    replies = list(grid.send_and_receive(messages, timeout=timeout))
    assert [r.metadata.src_node_id for r in replies] == list(grid.clients)
    return [r.error.reason if r.has_error() else float(r.content["m"]["x"]) for r in replies]


def hanging_app(hanging: set[int], released: threading.Event) -> ClientApp:
    app = ClientApp()

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        client = int(context.node_config[CLIENT_ID])
        if client in hanging:
            released.wait(30.0)
        return Message(RecordDict({"m": MetricRecord({"x": client * 10.0})}), reply_to=message)

    return app


def test_replies_come_in_the_order_of_the_messages_whoever_is_first() -> None:
    app = ClientApp()

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        client = int(context.node_config[CLIENT_ID])
        time.sleep(0.02 * (7 - client))
        return Message(RecordDict({"m": MetricRecord({"x": client})}), reply_to=message)

    with InProcessGrid(app, range(7), workers=3, threads=1) as grid:
        assert ask(grid) == list(range(7))


def test_one_that_hangs_is_left_out_and_costs_the_others_nothing() -> None:
    released = threading.Event()
    app = hanging_app({0, 3}, released)
    with InProcessGrid(app, range(12), workers=2, threads=1) as grid:
        first = ask(grid, timeout=1.0)
        assert str(first[0]).startswith("no reply within 1 s")
        assert first[1:3] == [10.0, 20.0]
        # Both workers hang by then: those whose turn never came are told apart.
        assert all(str(reason).startswith(("no reply", "its turn")) for reason in first[3:])
        second = ask(grid, timeout=1.0)
        assert second[0] == second[3] == "still at work for an earlier round"
        assert [x for i, x in enumerate(second) if i not in (0, 3)] == [
            client * 10.0 for client in range(12) if client not in (0, 3)
        ]
        released.set()
        time.sleep(0.2)
        assert ask(grid, timeout=5.0) == [client * 10.0 for client in range(12)]


def test_behind_one_that_hangs_all_others_are_heard() -> None:
    released = threading.Event()
    with InProcessGrid(hanging_app({1}, released), range(20), 2, threads=1) as grid:
        answers = ask(grid, timeout=1.0)
    released.set()
    assert str(answers.pop(1)).startswith("no reply")
    assert answers == [client * 10.0 for client in range(20) if client != 1]


def test_workers_keep_to_their_number_of_threads() -> None:
    app = ClientApp()

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        content = RecordDict({"m": MetricRecord({"x": torch.get_num_threads()})})
        return Message(content, reply_to=message)

    with InProcessGrid(app, range(3), workers=2, threads=1) as grid:
        assert ask(grid) == [1.0, 1.0, 1.0]
