"""Real federations in Ray actors, and actors that die, hang or do not fit."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from phoenix_pipeline.config import RayConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.federated.engines.ray_actors import RayGrid
from tests.federated.test_conditional import conditional
from tests.federated.tiny import arrays_of, federate, same, settings

LIMIT_S = 20.0

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")


@pytest.fixture
def cluster() -> Iterator[None]:
    import ray

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    path = os.pathsep.join(filter(None, sys.path))
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"uv pip install -e '\.\[ray\]'"):
        federate(tmp_path, engine="ray")


@needs_ray
@pytest.mark.slow
def test_ray_learns_classes_with_the_bits_of_in_process(tmp_path: Path) -> None:
    here = conditional(tmp_path / "here", rounds=2)
    there = conditional(tmp_path / "there", rounds=2, engine="ray")
    assert same(there.raw, here.raw)


@needs_ray
@pytest.mark.slow
def test_ray_ends_with_the_bits_of_in_process(tmp_path: Path) -> None:
    import ray

    told = settings(("conv_out",), optimizer_state="keep")
    here = federate(tmp_path / "here", rounds=2, settings=told, workers=2)
    there = federate(tmp_path / "there", rounds=2, settings=told, engine="ray")
    assert same(there.raw, here.raw)
    assert same(there.ema, here.ema)
    for client in (0, 1):
        kept = arrays_of(there.client_state(client))
        assert same(kept, arrays_of(here.client_state(client)))
    assert there.rounds.drop(columns="seconds").equals(here.rounds.drop(columns="seconds"))
    assert not ray.is_initialized()
    assert not (tmp_path / "there" / "client_images").exists()


@needs_ray
@pytest.mark.slow
def test_a_running_cluster_is_used_and_left_running(tmp_path: Path, cluster: None) -> None:
    import ray

    federate(tmp_path, rounds=1, engine="ray")
    assert ray.is_initialized()
    too_much = RayConfig(num_gpus_per_client=0.5)
    with pytest.raises(SettingsError, match=r"1 CPUs and 0.5 GPUs.*Ray has 2 and 0"):
        federate(tmp_path, rounds=1, engine="ray", ray=too_much)


@needs_ray
@pytest.mark.slow
def test_actors_that_die_or_hang_are_replaced(tmp_path: Path, cluster: None) -> None:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    bad = tmp_path / "bad"

    def open_app() -> ClientApp:
        app = ClientApp()

        @app.query()
        def answer(message: Message, context: Context) -> Message:
            client = int(context.node_config["client-id"])
            if client == 1 and bad.exists():
                os._exit(1)
            if client == 2 and bad.exists():
                time.sleep(300.0)
            return Message(RecordDict({"m": MetricRecord({"x": client})}), reply_to=message)

        return app

    with RayGrid(open_app, range(4), 2, RayConfig()) as grid:
        # No limit where actors must start, which takes as long as it takes.
        assert _ask(grid, range(4), None) == [0, 1, 2, 3]
        bad.write_text("yes")
        answers = _ask(grid, range(3), LIMIT_S)
        assert answers[:2] == [0, "its process ended before it replied"]
        assert str(answers[2]).startswith(f"no reply within {LIMIT_S:.0f} s")
        bad.unlink()
        assert _ask(grid, range(4), None) == [0, 1, 2, 3]


def _ask(grid: RayGrid, clients: Iterable[int], timeout: float | None) -> list[float | str]:
    """Return each client's answer, or why there is none."""
    messages = [Message(RecordDict(), client + 1, "query") for client in clients]
    replies = grid.send_and_receive(messages, timeout=timeout)
    return [r.error.reason if r.has_error() else float(r.content["m"]["x"]) for r in replies]
