"""Adam's moments survive a round trip through named tensors and a file."""

from pathlib import Path

import pytest
import torch
from torch import nn

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.optimization.adam_state import adam_state, restore_adam_state


def build_network() -> nn.Linear:
    network = nn.Linear(4, 3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    return network


def take_step(network: nn.Linear, optimizer: torch.optim.Optimizer, step: int) -> None:
    batch = torch.linspace(step, step + 1, 8).view(2, 4)
    optimizer.zero_grad()
    network(batch).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("fused", [False, True])
def test_next_step_is_the_same_bit_for_bit(tmp_path: Path, fused: bool) -> None:
    network = build_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, fused=fused)
    for step in range(3):
        take_step(network, optimizer, step)
    save_tensors(
        tmp_path / "adam.safetensors", adam_state(optimizer, network.named_parameters()), {}
    )

    copy = build_network()
    copy.load_state_dict(network.state_dict())
    restored = torch.optim.AdamW(copy.parameters(), lr=0.1, fused=fused)
    state, _ = load_tensors(tmp_path / "adam.safetensors")
    restore_adam_state(restored, copy.named_parameters(), state)
    take_step(network, optimizer, 3)
    take_step(copy, restored, 3)

    assert torch.equal(network.weight, copy.weight)
    assert torch.equal(network.bias, copy.bias)


def test_state_is_empty_before_the_first_step() -> None:
    network = build_network()
    assert adam_state(torch.optim.AdamW(network.parameters()), network.named_parameters()) == {}


def test_restored_moments_are_copies() -> None:
    network = build_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    take_step(network, optimizer, 0)
    state = {
        name: tensor.clone()
        for name, tensor in adam_state(optimizer, network.named_parameters()).items()
    }
    before = {name: tensor.clone() for name, tensor in state.items()}
    restore_adam_state(optimizer, network.named_parameters(), state)
    take_step(network, optimizer, 1)
    assert all(torch.equal(before[name], state[name]) for name in state)
