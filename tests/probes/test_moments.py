"""Moments against numpy, and that how rows were cut up and put together again changes nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from thoughtlens.hooks.artifact import save_artifact
from thoughtlens.probes.moments import TENSORS, Moments, gram, parts

torch.set_num_threads(1)


def data(n: int = 60, d: int = 7, fits: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, n, d, generator=generator, dtype=torch.float64) + 300
    return x, torch.rand(fits, n, generator=generator) < 0.4


def close(ours: Moments, theirs: Moments, tolerance: float = 1e-12) -> None:
    for name in TENSORS:
        one, two = getattr(ours, name), getattr(theirs, name)
        assert one.shape == two.shape
        assert (one - two).abs().max() <= tolerance * two.abs().max().clamp_min(1), name


def by_numpy(x: torch.Tensor, weights: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    mean = np.average(x.numpy(), axis=0, weights=weights.numpy())
    return mean, np.cov(x.numpy().T, aweights=weights.numpy(), ddof=0) * weights.sum().item()


FOLDS = torch.arange(60) % 4
ROWS = {
    "folds": torch.stack([fold != FOLDS for fold in torch.arange(4)]),
    "nested": torch.stack([torch.arange(60) < n for n in (10, 25, 60)]),
    "overlapping": torch.rand(3, 60, generator=torch.Generator().manual_seed(1)) < 0.7,
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_equals_numpy_for_every_mask(rows: torch.Tensor) -> None:
    x, y = data()
    mask = torch.tensor([0, len(rows) - 1, 0])
    moments = Moments.of(x, y, rows, mask=mask)
    for site in range(2):
        for i, row in enumerate(rows):
            mean, scatter = by_numpy(x[site], row.double())
            np.testing.assert_allclose(moments.mean[site, i], mean, rtol=1e-13)
            np.testing.assert_allclose(moments.scatter[site, i], scatter, rtol=1e-10, atol=1e-10)
        for fit in range(3):
            for value in (0, 1):
                weights = rows[mask[fit]].double() * (y[fit] == value)
                assert moments.class_count[fit, value] == weights.sum()
                np.testing.assert_allclose(moments.class_mean[site, fit, value], by_numpy(x[site], weights)[0], rtol=1e-13)


@settings(max_examples=60, deadline=None)
@given(data_=st.data())
def test_rows_in_any_chunks_and_any_order_of_merging_are_the_whole(data_: st.DataObject) -> None:
    n = data_.draw(st.integers(1, 40))
    x, y = data(n)
    rows = torch.stack([torch.arange(n) % 3 != 1, torch.ones(n, dtype=torch.bool)])
    mask = torch.tensor([0, 1, 1])
    order = torch.tensor(data_.draw(st.permutations(range(n))))
    cuts = sorted(data_.draw(st.lists(st.integers(0, n), max_size=6)))  # equal cuts make empty chunks
    chunks = [Moments.of(x[:, at], y[:, at], rows[:, at], mask=mask) for at in np.split(order, cuts)]
    whole = Moments.of(x, y, rows, mask=mask)
    close(Moments.total(chunks), whole)
    while len(chunks) > 1:  # a tree of merges
        i = data_.draw(st.integers(0, len(chunks) - 2))
        chunks[i : i + 2] = [chunks[i + 1] + chunks[i]]
    close(chunks[0], whole)


def test_single_rows_far_from_zero_in_bfloat16_equal_the_two_pass_formula() -> None:
    x = (torch.randn(1, 500, 4, generator=torch.Generator().manual_seed(3)) * 2 + 300).bfloat16()
    y = (torch.arange(500) % 3 == 0)[None]
    streamed = reduce(lambda total, i: total + Moments.of(x[:, i : i + 1], y[:, i : i + 1]), range(1, 500), Moments.of(x[:, :1], y[:, :1]))
    wide = x[0].double().numpy()
    np.testing.assert_allclose(streamed.scatter[0, 0], (wide - wide.mean(0)).T @ (wide - wide.mean(0)), rtol=1e-11, atol=1e-9)
    assert streamed.count.item() == 500 and streamed.class_count.tolist() == [[333, 167]]


def test_masks_are_cut_into_few_pieces_and_rows_in_none_are_left_out() -> None:
    member, part = parts(torch.stack([FOLDS == 0, (FOLDS == 0) | (FOLDS == 2)]))
    assert sorted(member.T.tolist()) == [[0, 1], [1, 1]]
    assert bool((part[(FOLDS == 1) | (FOLDS == 3)] == -1).all())
    assert [member[:, i].tolist() for i in (part[FOLDS == 0].unique(), part[FOLDS == 2].unique())] == [[[1.0], [1.0]], [[0.0], [1.0]]]


@pytest.mark.parametrize("d", [1, 255, 256, 257, 600])
def test_gram_is_the_product(d: int) -> None:
    x = torch.randn(5, d, dtype=torch.float64)
    torch.testing.assert_close(gram(x), x.T @ x, rtol=1e-12, atol=1e-12)


ABOUT = {"sites": ["resid_post.1", "resid_post.2"], "label": "harmful", "fingerprint": "f00d"}


def test_moments_come_back_from_disk_and_go_on_being_merged(tmp_path) -> None:
    x, y = data()
    one, two = (Moments.of(x[:, at], y[:, at], about=ABOUT, groups=names) for at, names in ((slice(20), "ab"), (slice(20, None), "bc")))
    one.save(tmp_path / "one.safetensors")
    loaded = Moments.load(tmp_path / "one.safetensors")
    assert all(torch.equal(getattr(loaded, name), getattr(one, name)) for name in TENSORS) and loaded.about == ABOUT
    both = loaded + two
    close(both, Moments.of(x, y))
    assert both.groups == {"a", "b", "c"}
    with pytest.raises(FileExistsError):
        one.save(tmp_path / "one.safetensors")
    save_artifact(tmp_path / "vector.safetensors", {"v": torch.zeros(2)}, {"kind": "vector"})
    with pytest.raises(ValueError, match="holds a 'vector', not moments"):
        Moments.load(tmp_path / "vector.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "refused"}, "label is .harmful. in one and .refused. in the other"),
        ({"fingerprint": "beef"}, "fingerprint is 'f00d' in one"),
        ({"sites": ["resid_post.1", "resid_post.3"]}, "sites is"),
        ({"span": "thought"}, "span is None in one and 'thought' in the other"),
    ],
)
def test_what_does_not_belong_together_is_not_merged(change: dict, message: str) -> None:
    x, y = data()
    with pytest.raises(ValueError, match=message):
        Moments.of(x, y, about=ABOUT) + Moments.of(x, y, about={**ABOUT, **change})


def test_the_same_transcripts_are_not_counted_twice(tmp_path) -> None:
    x, y = data()
    one, two, three = (replace(Moments.of(x, y), transcripts=frozenset(names)) for names in (("a", "b"), ("b", "c", "d"), ("e",)))
    one.save(tmp_path / "one.safetensors")
    assert Moments.load(tmp_path / "one.safetensors").transcripts == {"a", "b"}
    assert (one + three).transcripts == {"a", "b", "e"}
    with pytest.raises(ValueError, match=r"1 transcripts are in both, of 2 and 3, .* transcripts\[worker::workers\]"):
        Moments.load(tmp_path / "one.safetensors") + two
    with pytest.raises(ValueError, match="1 transcripts are in both"):
        Moments.total([one, three, two])


def test_other_widths_and_other_masks_are_not_merged() -> None:
    x, y = data()
    whole = Moments.of(x, y)
    for other in (Moments.of(x[..., :5], y), Moments.of(x[:1], y), Moments.of(x, y, torch.ones(3, 60, dtype=torch.bool))):
        with pytest.raises(ValueError, match="differ in shape"):
            whole + other
