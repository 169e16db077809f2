"""A network's weights as one vector: which columns of it are which array."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Size, Tensor, nn

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Columns:
    """Arrays by name in a vector [P], by parts; the first ``shared`` came from the server."""

    shapes: dict[str, Size]
    shared: int

    @classmethod
    def of(cls, network: nn.Module, from_server: frozenset[str]) -> "Columns":
        """Return the columns of ``network``'s parameters."""
        shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        names = sorted(shapes, key=lambda name: (name not in from_server, name))
        shared = sum(name in from_server for name in names)
        return cls({name: shapes[name] for name in names}, shared)

    def flatten(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return all ``arrays`` as one vector [P]."""
        return _join(arrays, self.shapes)

    def flatten_shared(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return those of ``arrays`` that came from the server as one vector, named ``shared``."""
        return {"shared": _join(arrays, self._names["shared"])}

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the arrays that ``vector`` [P] holds, as views."""
        parts = vector.split(self._sizes)
        shapes = self.shapes.items()
        return {name: part.view(shape) for (name, shape), part in zip(shapes, parts, strict=True)}

    def views(self, stack: Tensor) -> dict[str, Tensor]:
        """Return the arrays [C, ...] of ``stack`` [C, P], contiguous.

        Arrays of a shape are laid out together: a copy of each by itself takes longer than what is
        computed with it.
        """
        parts = dict(zip(self.shapes, stack.split(self._sizes, dim=1), strict=True))
        arrays: dict[str, Tensor] = {}
        for shape, names in self._by_shape.items():
            together = torch.stack([parts[name] for name in names])
            each = together.view(len(names), len(stack), *shape).unbind()
            arrays.update(zip(names, each, strict=True))
        return arrays

    def groups(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the ``shared`` and the ``personal`` part of ``vector`` [P]; none is empty."""
        bound = sum(self._sizes[: self.shared])
        parts = {"shared": vector[:bound], "personal": vector[bound:]}
        return {group: part for group, part in parts.items() if len(part)}

    def flatten_moments(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return Adam's moments of arrays as those of the groups; a new array's start at zero."""
        flat: dict[str, Tensor] = {}
        for group, names in self._names.items():
            known = [name for name in names if f"step.{name}" in state]
            if not known:
                continue
            for moment in _MOMENTS:
                zero = state[f"{moment}.{known[0]}"].new_zeros(())
                arrays = {name: zero.expand(self.shapes[name]) for name in set(names) - set(known)}
                arrays |= {name: state[f"{moment}.{name}"] for name in known}
                flat[f"{moment}.{group}"] = _join(arrays, names)
            flat[f"step.{group}"] = state[f"step.{known[0]}"]
        return flat

    def split_moments(self, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the moments of the groups as those of the arrays, as views."""
        state: dict[str, Tensor] = {}
        for group, names in self._names.items():
            if f"step.{group}" not in flat:
                continue
            state.update({f"step.{name}": flat[f"step.{group}"] for name in names})
            for moment in _MOMENTS:
                parts = flat[f"{moment}.{group}"].split([self.shapes[n].numel() for n in names])
                for name, part in zip(names, parts, strict=True):
                    state[f"{moment}.{name}"] = part.view(self.shapes[name])
        return state

    @property
    def size(self) -> int:
        """P, the number of weights."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [shape.numel() for shape in self.shapes.values()]

    @property
    def _by_shape(self) -> dict[Size, list[str]]:
        names: dict[Size, list[str]] = {}
        for name, shape in self.shapes.items():
            names.setdefault(shape, []).append(name)
        return names

    @property
    def _names(self) -> dict[str, list[str]]:
        names = list(self.shapes)
        bounds = (0, self.shared, len(names))
        return {
            g: names[a:b]
            for g, (a, b) in zip(("shared", "personal"), pairwise(bounds), strict=True)
        }


def _join(arrays: Mapping[str, Tensor], names: Iterable[str]) -> Tensor:
    return torch.cat([arrays[name].detach().reshape(-1) for name in names])
