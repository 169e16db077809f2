"""What is kept of a model by round: at the asked rounds, once, and at no cost to the bits."""

from pathlib import Path

import pytest

from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.federated.round_teller import find_snapshots, read_snapshot
from tests.federated.tiny import UNET, federate, interrupt, same, settings

EVERY_SECOND = {"every": 2}


def test_the_asked_rounds_and_the_last_are_kept(tmp_path: Path) -> None:
    plain = federate(tmp_path / "plain", rounds=3)
    assert find_snapshots(tmp_path / "plain") == {}

    result = federate(tmp_path / "kept", rounds=3, snapshots=EVERY_SECOND)
    kept = {n: read_snapshot(file) for n, file in find_snapshots(tmp_path / "kept").items()}
    assert list(kept) == [2, 3]
    assert same(kept[3], result.ema)
    assert not same(kept[2], kept[3])
    assert same(result.raw, plain.raw)
    assert same(result.ema, plain.ema)


def test_a_killed_run_keeps_the_same_and_doubles_nothing(tmp_path: Path) -> None:
    options = {"rounds": 4, "snapshots": EVERY_SECOND, "checkpoint_every": 3}
    federate(tmp_path / "whole", **options)
    # After round 2, whose weights were kept, and before the first checkpoint.
    interrupt(tmp_path / "cut", after=2, **options)
    assert list(find_snapshots(tmp_path / "cut")) == [2]
    federate(tmp_path / "cut", **options)
    whole, cut = (find_snapshots(tmp_path / name) for name in ("whole", "cut"))
    assert list(whole) == list(cut) == [2, 4]
    assert all(same(read_snapshot(whole[n]), read_snapshot(cut[n])) for n in whole)


def test_starting_over_leaves_none_of_the_earlier_run(tmp_path: Path) -> None:
    federate(tmp_path, rounds=3, snapshots={"every": 1})
    federate(tmp_path, rounds=2, snapshots=EVERY_SECOND, resume=False)
    assert list(find_snapshots(tmp_path)) == [2]


def test_given_weights_are_kept_as_round_0(tmp_path: Path) -> None:
    start = build_unet(UNET, 1, 8, 77).state_dict()
    options = {"rounds": 3, "snapshots": EVERY_SECOND, "start": start}
    federate(tmp_path / "whole", **options)
    kept = find_snapshots(tmp_path / "whole")
    assert list(kept) == [0, 2, 3]
    assert same(read_snapshot(kept[0]), dict(start))
    interrupt(tmp_path / "cut", after=1, **options)
    federate(tmp_path / "cut", **options)
    assert list(find_snapshots(tmp_path / "cut")) == [0, 2, 3]


def test_clients_models_are_not_at_the_server(tmp_path: Path) -> None:
    personal = settings(personal_layers=("conv_out",))
    federate(tmp_path, settings=personal, snapshots={"every": 1})
    assert find_snapshots(tmp_path) == {}


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    federate(tmp_path, rounds=1, snapshots={"every": 1})
    (file,) = find_snapshots(tmp_path).values()
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="not a complete"):
        read_snapshot(file)
