"""Compiled dropout draws the same masks, in one graph, which is not compiled anew for a round."""

import copy
from collections.abc import Iterator

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from phoenix_pipeline.config import NoiseConfig, TrainingConfig, UNetConfig
from phoenix_pipeline.diffusion import stack
from phoenix_pipeline.diffusion.dropout import SeededDropout, set_dropout_generators
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.stacked import train_stacked
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.optimization.work import ClientTask, LocalWork

SCHEDULE = NoiseSchedule.from_config(NoiseConfig(), "cpu")
PLAIN = TrainingConfig(batch_size=4, compile=False)
COMPILED = TrainingConfig(batch_size=4, compile=True)


@pytest.fixture(autouse=True)
def nothing_is_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    stack._compiled_losses.cache_clear()
    yield
    torch._dynamo.reset()
    stack._compiled_losses.cache_clear()


def network() -> UNet2DModel:
    config = UNetConfig(
        block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4, dropout=0.3
    )
    return build_unet(config, 1, 8, seed=0)


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (9, 1, 8, 8), generator=generator, dtype=torch.uint8)


def work(server_round: int, client: int = 0) -> LocalWork:
    return LocalWork(2, 0.0, 1.0, seed=10 * server_round + client)


def test_a_compiled_network_learns_the_same_over_rounds() -> None:
    plain, compiled = network(), network()
    counter = CompileCounterWithBackend("aot_eager")
    compiled.compile(backend=counter)
    for server_round in range(3):
        losses = [
            train_locally(unet, images(), work(server_round), SCHEDULE, config).loss
            for unet, config in ((plain, PLAIN), (compiled, COMPILED))
        ]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert counter.frame_count == len(counter.graphs) == 1


def test_compiled_clients_learn_the_same_over_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(
        stack, "compile_function", lambda function: torch.compile(function, backend=counter)
    )
    unet = network()
    start = [{n: p.clone() for n, p in unet.state_dict().items()} for _ in range(3)]
    weights = {config: copy.deepcopy(start) for config in ("plain", "compiled")}
    for server_round in range(2):
        losses = []
        for config, own in zip((PLAIN, COMPILED), weights.values(), strict=True):
            tasks = [
                ClientTask(images(), work(server_round, client), weights=arrays)
                for client, arrays in enumerate(own)
            ]
            done = train_stacked(unet, tasks, SCHEDULE, config)
            losses += [r.loss for r in done if not isinstance(r, TrainingError)]
        assert losses[3:] == pytest.approx(losses[:3], rel=1e-4)
        assert len(set(losses[:3])) == 3
    assert counter.frame_count == len(counter.graphs) == 1


def test_generators_that_are_taken_away_leave_ordinary_dropout() -> None:
    module, x = SeededDropout(0.5), torch.ones(1000)
    set_dropout_generators(module, [torch.Generator().manual_seed(3)])
    first = module(x)
    set_dropout_generators(module, [torch.Generator().manual_seed(3)])
    assert torch.equal(module(x), first)
    set_dropout_generators(module, ())
    torch.manual_seed(0)
    expected = torch.nn.functional.dropout(x, 0.5)
    torch.manual_seed(0)
    assert torch.equal(module(x), expected)
