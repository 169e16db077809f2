"""Strategies in real rounds: what travels and is kept, resumes, codecs, noise, one of a user."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field

from phoenix_pipeline.config import Group
from phoenix_pipeline.federated.wire import load_packed
from phoenix_pipeline.registry import register
from phoenix_pipeline.strategies import ClientView, ServerView, Strategy
from phoenix_pipeline.strategies.strategy import Arrays
from tests.federated.tiny import (
    arrays_of,
    client_table,
    federate,
    interrupt,
    make_images,
    same,
    settings,
)

SIZES = (12, 36, 20)
KEPT = settings(optimizer_state="keep")
UNIFORM = {
    "up": {"codec": "uniform"},
    "down": {"codec": "uniform", "relative_to": "last_broadcast"},
}
PRIVATE = {"enabled": True, "clip_norm": 0.5, "noise_multiplier": 0.5}
COMBINATIONS: dict[str, dict[str, Any]] = {
    "scaffold": {"strategies": {"scaffold": {}}},
    "feddyn": {"strategies": {"feddyn": {"alpha": 0.1}}},
    "all": {"strategies": {"scaffold": {}, "feddyn": {}, "alignment": {}, "fedprox": {}}},
    "personal": {
        "strategies": {"scaffold": {}},
        "settings": settings(("conv_out",), optimizer_state="keep"),
    },
    "codec": {"strategies": {"scaffold": {}, "alignment": {}}, "compression": UNIFORM},
    "some": {"strategies": {"scaffold": {}, "feddyn": {}}, "client_fraction": 0.67},
    "robust": {"strategies": {"scaffold": {}}, "aggregation": {"rule": "median"}},
    "local noise": {
        "strategies": {"scaffold": {}},
        "differential_privacy": {**PRIVATE, "placement": "local"},
        "secret_noise": False,
    },
    "central noise": {
        "strategies": {"scaffold": {}},
        "differential_privacy": PRIVATE,
        "secret_noise": False,
    },
}


def options_of(name: str) -> dict[str, Any]:
    data = {"images": make_images(sum(SIZES)), "client_images": client_table(SIZES)}
    return {"rounds": 4, "settings": KEPT, **data, **COMBINATIONS[name]}


def variate_of_server(folder: Path, number: int) -> dict[str, torch.Tensor]:
    kept = load_packed(folder / f"server/round-{number:06d}.safetensors")[0]["strategies"]
    own = "scaffold/"
    return {n.removeprefix(own): array for n, array in kept.items() if n.startswith(own)}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_an_interrupted_run_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    options = options_of(name)
    whole = federate(tmp_path / "whole", **options)
    interrupt(tmp_path / "cut", after=2, **options)
    resumed = federate(tmp_path / "cut", **options)
    assert (whole.rounds["status"] == "ok").all()
    assert same(whole.raw, resumed.raw)
    for client in range(len(SIZES)):
        kept = arrays_of(whole.client_state(client))
        assert same(kept, arrays_of(resumed.client_state(client)))
    plain = federate(tmp_path / "plain", **{**options, "strategies": {}})
    assert not same(whole.raw, plain.raw), "the strategies changed nothing"


@pytest.mark.parametrize("name", ["scaffold", "all", "personal"])
def test_the_servers_variate_is_the_clients_mean_by_images(name: str, tmp_path: Path) -> None:
    result = federate(tmp_path, **options_of(name))
    server = variate_of_server(tmp_path, 4)
    assert server.keys() == result.raw.keys()
    for array, variate in server.items():
        own = [result.client_state(c).strategies[f"scaffold/{array}"] for c in range(len(SIZES))]
        mean = sum(n * v for n, v in zip(SIZES, own, strict=True)) / sum(SIZES)
        torch.testing.assert_close(variate, mean, rtol=1e-4, atol=1e-4)
        assert variate.any()


def test_variates_double_the_traffic_and_codecs_take_them_along(tmp_path: Path) -> None:
    def traffic(folder: str, **options: Any) -> list[int]:
        rounds = federate(tmp_path / folder, **{**options_of("scaffold"), **options}).rounds
        return rounds.groupby("round")[["bytes_up", "bytes_down"]].sum().loc[3].tolist()

    plain, doubled = traffic("plain", strategies={}), traffic("doubled")
    packed = traffic("packed", compression=UNIFORM)
    for way in (0, 1):
        assert doubled[way] == pytest.approx(2 * plain[way], rel=0.05)
        assert packed[way] < 0.25 * doubled[way]


class MoveSlowly(Strategy):
    """Goes a part of the way to the aggregate; clients say how many steps they made in all."""

    class Settings(Group):
        """How far."""

        part: float = Field(0.5, gt=0.0, le=1.0)

    name: ClassVar[str] = "move_slowly"
    seen: ClassVar[list[float]] = []
    heard: ClassVar[list[float]] = []

    def told_like(self, weights: Arrays) -> Arrays:
        """One number."""
        return {"rounds": torch.zeros(1)}

    def tell(self, weights: Arrays, kept: Arrays) -> Arrays:
        """How many rounds are done."""
        return kept or self.told_like(weights)

    def sent_like(self, weights: Arrays) -> Arrays:
        """One number."""
        return {"steps": torch.zeros(1)}

    def after_training(self, client: ClientView, trained: Arrays) -> tuple[Arrays, Arrays]:
        """Count."""
        self.heard.append(client.told["rounds"].item())
        steps = client.kept.get("steps", torch.zeros(1)) + client.work.steps
        return {"steps": steps}, {"steps": steps}

    def after_round(self, server: ServerView) -> tuple[Arrays, Arrays]:
        """Go."""
        self.seen.append(server.sent["steps"].item())
        part = self.settings.part
        moved = {n: torch.lerp(b, server.aggregate[n], part) for n, b in server.before.items()}
        return moved, {"rounds": torch.tensor([float(server.server_round)])}


def test_a_strategy_of_ones_own_needs_no_other_file(tmp_path: Path) -> None:
    register("strategies", "move_slowly", MoveSlowly)
    MoveSlowly.seen.clear()
    MoveSlowly.heard.clear()
    options = {"rounds": 3, "settings": KEPT}
    whole = federate(tmp_path / "w", **options, strategies={"move_slowly": {"part": 1.0}})
    assert MoveSlowly.seen == [2.0, 4.0, 6.0]
    assert MoveSlowly.heard == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    plain = federate(tmp_path / "p", **options)
    assert same(whole.raw, plain.raw)
    first = federate(tmp_path / "h", **{**options, "rounds": 1}, strategies={"move_slowly": {}})
    once = federate(tmp_path / "o", **{**options, "rounds": 1})
    start = KEPT.build_network().state_dict()
    for name, array in first.raw.items():
        torch.testing.assert_close(array, (start[name] + once.raw[name]) / 2)
