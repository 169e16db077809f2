"""What a bad client can do to a round: it is left out with the reason, and nothing else."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp

from phoenix_pipeline.config import CompressionConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.client_app import answer_errors, build_client_app
from phoenix_pipeline.federated.client_state import ClientStates
from phoenix_pipeline.federated.compression.partial_updates import assign_halves, sent_names
from phoenix_pipeline.federated.engines.in_process import InProcessGrid
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.job import FederatedResult
from phoenix_pipeline.federated.program import Watch, run_program
from phoenix_pipeline.federated.sites import CLIENT_ID, Sites
from tests.federated.tiny import job, same, settings

Spoil = Callable[[Message], None]


def federate_with(folder: Path, spoil: Spoil | None, **options: object) -> FederatedResult:
    """Run one round of two clients; ``spoil`` changes the reply of client 1."""
    told = job(rounds=1, **options)
    sites = Sites.in_memory(told, torch.device("cpu"), ClientStates(folder / "clients"))
    honest, app = build_client_app(sites), ClientApp(mods=[answer_errors])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        if spoil and context.node_config[CLIENT_ID] == 1:
            spoil(reply)
        return reply

    with InProcessGrid(app, sites.sizes(), workers=2, threads=1) as grid:
        fleet = Fleet(grid, grid.clients, sites.sizes(), sites.state)
        return run_program(told, folder, fleet, Watch())


def metric(name: str, value: float) -> Spoil:
    def spoil(reply: Message) -> None:
        reply.content["metrics"][name] = value

    return spoil


def array(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(reply: Message) -> None:
        arrays = reply.content["arrays"]
        arrays["float32"] = Array(change(arrays["float32"].numpy().copy()))

    return spoil


def set_first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values.flat[0] = value
        return values

    return change


def drop_array(reply: Message) -> None:
    reply.content["arrays"] = ArrayRecord(dict(list(reply.content["arrays"].items())[1:]))


def no_metrics(reply: Message) -> None:
    reply.content["metrics"] = MetricRecord()


def no_arrays(reply: Message) -> None:
    del reply.content["arrays"]


def config_for_arrays(reply: Message) -> None:
    reply.content["arrays"] = ConfigRecord({"float32": "x"})


def long_header(reply: Message) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"-" * 9000 + b"1,), }\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    reply.content["arrays"] = ArrayRecord(
        {"float32": Array("float32", (1,), "numpy.ndarray", data)}
    )


def too_large(reply: Message) -> None:
    reply.content["arrays"]["more"] = Array(np.zeros(1 << 20))


FAULTS = {
    "negative count": (
        metric("num-examples", -3),
        "num-examples is -3; a whole number from 1 to",
    ),
    "zero count": (metric("num-examples", 0), "num-examples is 0;"),
    "infinite count": (metric("num-examples", math.inf), "num-examples is inf;"),
    "absurd count": (metric("num-examples", 10**15), "num-examples is 1e+15;"),
    "nan": (array(set_first(math.nan)), "not finite"),
    "infinity": (array(set_first(-math.inf)), "not finite"),
    "enormous": (array(set_first(1e30)), "1e+30"),
    "shape": (array(lambda values: values[:1]), "array float32 is torch.float32 (1,)"),
    "dtype": (array(lambda values: values.astype(np.float64)), "float64"),
    "byte order": (array(lambda values: values.astype(">f4")), "cannot be read"),
    "missing array": (drop_array, "arrays are none; the model and the settings need float32"),
    "infinite work": (metric("images-trained", math.inf), "images-trained is inf;"),
    "more work than asked": (metric("images-trained", 13), "a whole number from 0 to 12 is read"),
    "enormous work": (metric("images-trained", 2**62), "images-trained is too long"),
    "negative work": (metric("images-trained", -5), "images-trained is -5;"),
    "infinite loss": (metric("loss", math.inf), "loss is inf;"),
    "loss of no size": (metric("loss", -1e308), "loss is -1e+308;"),
    "infinite time": (metric("seconds", math.inf), "seconds is inf;"),
    "a list of scores": (metric("score", [1.0]), "score is a list;"),
    "a list": (metric("loss", [1.0]), "loss is a list;"),
    "settings for arrays": (config_for_arrays, "record arrays is a ConfigRecord"),
    "a header of 9,000 signs": (long_header, "header has"),
    "no metrics": (no_metrics, "malformed: KeyError"),
    "no arrays": (no_arrays, "the reply holds 1 records; arrays and metrics are read"),
    "too large": (too_large, "at most"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_reply_is_left_out_with_its_reason(fault: str, tmp_path: Path) -> None:
    spoil, said = FAULTS[fault]
    result = federate_with(tmp_path, spoil)
    honest, bad = result.rounds.to_dict("records")
    assert (honest["status"], bad["status"]) == ("ok", "failed")
    assert said in bad["reason"]
    assert all(tensor.isfinite().all() for tensor in result.raw.values())


def test_the_round_is_then_the_mean_of_the_others(tmp_path: Path) -> None:
    def crash(reply: Message) -> None:
        raise OSError("disk full")

    crashed = federate_with(tmp_path / "crashed", crash)
    spoiled = federate_with(tmp_path / "spoiled", FAULTS["nan"][0])
    whole = federate_with(tmp_path / "whole", None)
    assert same(crashed.raw, spoiled.raw)
    assert not same(crashed.raw, whole.raw)


def test_usplit_leaves_the_half_that_nobody_sent_as_it_was(tmp_path: Path) -> None:
    config = CompressionConfig(partial_update="usplit")
    result = federate_with(tmp_path, metric("num-examples", 0), compression=config)
    start = settings().build_network().state_dict()
    left = {name for name, tensor in result.raw.items() if torch.equal(tensor, start[name])}
    halves = assign_halves([0, 1], "usplit", settings().seed, 1)
    assert left == set(sent_names(start, halves[1], settings().model))


def test_too_few_good_replies_end_the_run_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"1 of 2 clients.*min_clients is 2.*not finite"):
        federate_with(tmp_path, FAULTS["nan"][0], min_clients=2)
