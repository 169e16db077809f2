"""A round's weights reach a device as one copy per dtype, whatever the layout there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from phoenix_pipeline.federated.client_model import ThreadModels
from phoenix_pipeline.federated.wire import join
from phoenix_pipeline.optimization.compilation import is_compiled
from tests.federated.tiny import settings


class CountCopies(TorchDispatchMode):
    """Counts the tensors that go from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.device.type != "cpu":
            self.copies += any(isinstance(a, Tensor) and a.device.type == "cpu" for a in args)
        elif func is torch.ops.aten._foreach_copy_.default:
            pairs = zip(args[0], args[1], strict=True)
            self.copies += sum(to.device != sent.device for to, sent in pairs)
        return result


@pytest.mark.parametrize("channels_last", [False, True])
def test_weights_go_to_a_device_as_one_copy(channels_last: bool) -> None:
    # The device `meta` has no values, but a device's ways of copying.
    model = ThreadModels().prepare(settings(channels_last=channels_last), torch.device("meta"))
    sent = join({name: torch.zeros(t.shape) for name, t in model.shared.items()})
    assert len(sent) > 20
    with CountCopies() as counted:
        model.load(sent, None)
    assert counted.copies == 1


@pytest.mark.parametrize("channels_last", [False, True])
def test_weights_arrive(channels_last: bool) -> None:
    told = settings(("conv_out",), channels_last=channels_last)
    model = ThreadModels().prepare(told, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    sent = {n: torch.randn(t.shape, generator=generator) for n, t in model.shared.items()}
    own = {n: torch.randn(t.shape, generator=generator) for n, t in model.personal.items()}
    model.load(join(sent), own)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, {**sent, **own}[name]), name


def test_the_network_of_stacked_clients_is_not_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    told, device = settings(compile=True), torch.device("cpu")
    assert is_compiled(ThreadModels().prepare(told, device).network)
    assert not is_compiled(ThreadModels(compiles=False).prepare_slots(told, device, 2)[0].network)
