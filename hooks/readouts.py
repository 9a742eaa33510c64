"""Readouts: linear probes read while the model runs, all of one site in one product.

    score_i = w_i · h + b_i

A hook at each site writes the scores of its probes for every token of the forward into one buffer on the device; nothing is copied to the
host here. What a probe reads at a steered site is what the model itself wrote there, before it is changed.

Shapes: `b` rows, `p` tokens of this forward, `k` probes, `d` width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.hooks import RemovableHandle

from .attach import place, watch
from .buffers import Buffers
from .operators import exact, wide
from .sites import Site

if TYPE_CHECKING:
    from .model import LensModel


class Readout(Protocol):
    """A direction to read along: a Probe is one, a ProbeGate too. One that has `made_for` says for which model it was fitted."""

    @property
    def weight(self) -> Float[Tensor, " d"]: ...

    @property
    def bias(self) -> float: ...

    @property
    def site(self) -> str: ...


class Reading:
    """All probes of one site.

    columns   where their scores stand in the buffer
    place     rank of the site in the forward pass
    """

    def __init__(self, lens: LensModel, site: Site, probes: Sequence[Readout], start: int) -> None:
        self.site, self.place, self.columns = site, place(site), slice(start, start + len(probes))
        dtype = wide(torch.empty(0, dtype=lens.dtype)).dtype
        self._weight = torch.stack([wide(probe.weight) for probe in probes]).to(lens.device, dtype)
        self._bias = torch.tensor([float(probe.bias) for probe in probes]).to(lens.device, dtype)

    def scores(self, h: Float[Tensor, "b p d"]) -> Float[Tensor, "b p k"]:
        device = h.device
        if self._weight.device != device:
            self._weight, self._bias = self._weight.to(device), self._bias.to(device)
        if h.dtype is self._weight.dtype and not torch.is_autocast_enabled(device.type):  # every site comes by here for every token
            return linear(h, self._weight, self._bias)
        with exact(device.type):
            return linear(h.to(self._weight.dtype), self._weight, self._bias)


def readings(lens: LensModel, probes: Sequence[Readout], whose: Sequence[str]) -> tuple[list[Reading], list[int]]:
    """The probes gathered by site, in the order of the forward pass; and for each probe its column in the buffer.

    whose   what each is called in an error
    ValueError for a probe of another width, or of a site this model does not have.
    """
    at: dict[Site, list[int]] = {}
    for number, (probe, name) in enumerate(zip(probes, whose, strict=True)):
        if len(sites := lens.expand(probe.site)) > 1:
            raise ValueError(f"{name} reads at one site, not at every {probe.site}: write the layer, as in {probe.site}.4")
        (site,) = sites
        if probe.weight.ndim != 1 or not (bool(probe.weight.isfinite().all()) and math.isfinite(float(probe.bias))):
            shape = list(probe.weight.shape)
            raise ValueError(f"the weight of {name} at {probe.site} is {shape}; it is one direction [d], finite like its bias")
        if probe.weight.numel() != lens.width:
            raise ValueError(
                f"{name} at {probe.site} has a weight of width {probe.weight.numel()}, {lens.name} has {lens.width}. "
                "Fit the probe on this family."
            )
        at.setdefault(site, []).append(number)
    found: list[Reading] = []
    columns = [0] * len(probes)
    for site in sorted(at, key=place):
        start = found[-1].columns.stop if found else 0
        found.append(Reading(lens, site, [probes[number] for number in at[site]], start))
        for column, number in enumerate(at[site], start):
            columns[number] = column
    return found, columns


def attach_reading(
    lens: LensModel, reading: Reading, buffers: Buffers, *, idle: Callable[[], bool], then: Callable[[tuple[int, int]], None]
) -> RemovableHandle:
    """Let a reading write its scores into the buffer "scores"; then(rows, tokens) follows, in the same forward. Where nobody asks for
    what it would read in this forward (idle), it does not; a compiled layer always does."""

    def take(_: Site, h: Tensor) -> None:
        if not torch.compiler.is_compiling() and idle():
            return
        shape = (h.shape[0], h.shape[1])
        buffers.view("scores", *shape, reading.columns).copy_(reading.scores(h.detach() if h.requires_grad else h))
        then(shape)

    return watch(lens, reading.site, take)
