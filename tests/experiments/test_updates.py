"""Updates of weights taken back along a direction: numpy's projections, only output projections, nothing of the models changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from thoughtlens.experiments.updates import kept, only, outputs, reverted, rewritten, without
from tiny import tiny_lens

BASE, TUNED = tiny_lens(seed=0), tiny_lens(seed=1)
U = torch.randn(BASE.width, generator=torch.Generator().manual_seed(5))
P = np.outer(U, U).astype(float) / float(U.double() @ U.double())


def weights(lens) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy().copy() for name, value in lens.model.named_parameters()}


@pytest.mark.parametrize("change", [without(U), only(U), reverted, kept])
def test_output_projections_are_rewritten_as_numpy_does_and_nothing_else_is(change) -> None:
    before = weights(BASE), weights(TUNED)
    start = BASE if change is kept else TUNED
    found = weights(rewritten(start, change, tuned=TUNED, base=BASE))
    paths = {f"{path}.weight" for path in outputs(TUNED)}
    assert len(paths) == 2 * TUNED.n_layers
    for name, weight in found.items():
        old, new = before[0][name], before[1][name]
        if name not in paths:
            assert np.array_equal(weight, weights(start)[name]), name
            continue
        expected = {reverted: old, kept: new}.get(change)
        if expected is None:
            expected = new - P @ (new - old) if change.__qualname__.startswith("without") else old + P @ (new - old)
        np.testing.assert_allclose(weight, expected, atol=1e-6)
        assert not np.array_equal(weight, weights(start)[name])
    for lens, was in zip((BASE, TUNED), before, strict=True):
        assert all(np.array_equal(value, was[name]) for name, value in weights(lens).items())


def test_one_layer_alone() -> None:
    found, was = weights(rewritten(TUNED, reverted, tuned=TUNED, base=BASE, layers=[1])), weights(TUNED)
    changed = {name for name in found if not np.array_equal(found[name], was[name])}
    assert changed == {f"{path}.weight" for path in outputs(TUNED, [1])} and len(changed) == 2
