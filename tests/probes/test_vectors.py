"""Steering vectors: the difference they claim, over the rows they claim, beside controls of equal length."""

from __future__ import annotations

import logging

import pandas as pd
import pytest
import torch
from thoughtlens.probes import random_vectors, vector_from_stores

SITES = {"resid_post.0": 1.0, "resid_post.1": 4.0}


def pair(build, spoil=None, shift: float = 2.0, noise: float = 0.0):
    """The same prompts through two models: the source has `shift` on the first coordinate of harmful rows, and `noise` everywhere."""

    def shifted(hidden, index):
        hidden += noise * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
        hidden[torch.tensor(index["harmful"].to_numpy(dtype=bool)), :, 0] += shift
        return spoil(hidden, index) if spoil else None

    return build(signal=SITES, model="safe", spoil=shifted), build(signal=SITES, model="reasoning")


def test_safe_reasoning_is_the_mean_change_over_the_same_tokens(build):
    source, target = pair(build)
    vector = vector_from_stores(source=source, target=target, span="last_prompt", where={"harmful": True, "split": "train"})
    expected = torch.zeros(12)
    expected[0] = 2.0
    for site in SITES:
        torch.testing.assert_close(vector.values[site], expected, atol=1e-5, rtol=0)
    rows = int(((target.index["harmful"]) & (target.index["split"] == "train")).sum())
    assert (vector.source, vector.span, vector.pool) == ("safe-reasoning", "last_prompt", "mean")
    assert (vector.header["source_model"], vector.header["target_model"]) == ("safe", "reasoning")
    assert vector_from_stores(source=target, target=source, span="last_prompt").source == "reasoning-safe"
    assert vector.header["n_positive"] == vector.header["n_negative"] == vector.header["n_scale"] == rows
    assert vector.header["where"] == {"harmful": True, "split": "train"}


def test_safe_reasoning_does_not_mind_the_order_of_rows(build, write):
    source, target = pair(build, noise=1.0)
    hidden, index = source.rows()
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))
    mixed = write(
        hidden[order], index.iloc[order.numpy()].reset_index(drop=True).drop(columns=["shard", "offset", "shard_sha"]), source.sites
    )
    straight, other = (vector_from_stores(source=s, target=target, span="last_prompt", shuffled=3) for s in (source, mixed))
    for site in SITES:
        torch.testing.assert_close(straight.values[site], other.values[site])


def test_harmful_benign_is_taken_within_the_source(build):
    source, target = pair(build)
    vector = vector_from_stores(source=source, target=target, contrast="harmful-benign", span="last_prompt", where={"split": "train"})
    hidden, index = source.rows({"split": "train"})
    harmful = torch.tensor(index["harmful"].to_numpy(dtype=bool))
    for i, site in enumerate(SITES):
        torch.testing.assert_close(vector.values[site], hidden[harmful, i].mean(0) - hidden[~harmful, i].mean(0), atol=1e-5, rtol=0)
    assert (vector.header["n_positive"], vector.header["n_negative"]) == (int(harmful.sum()), int((~harmful).sum()))
    assert vector.header["source_model"] == "safe"


def test_refused_complied_reads_its_own_column(build):
    def judged(hidden, index):
        return index.assign(refused=[True, False, None] * 90)

    store = build(signal=SITES, spoil=judged)
    vector = vector_from_stores(source=store, target=store, contrast="refused-complied", span="last_prompt")
    hidden, index = store.rows()
    refused, complied = hidden[torch.arange(270) % 3 == 0], hidden[torch.arange(270) % 3 == 1]
    torch.testing.assert_close(vector.values["resid_post.1"], (refused.mean(0) - complied.mean(0))[1], atol=1e-5, rtol=0)
    assert (vector.header["n_positive"], vector.header["n_negative"], vector.header["n_scale"]) == (90, 90, 270)


def test_the_scale_is_that_of_the_model_to_be_steered(build):
    def louder(hidden, index):
        hidden.mul_(10)

    source, target = pair(build, spoil=louder)
    vector = vector_from_stores(source=source, target=target, span="last_prompt", where={"split": "train"})
    hidden, _ = target.rows({"split": "train"})
    for i, site in enumerate(SITES):
        assert vector.scale[site] == pytest.approx(hidden[:, i].norm(dim=-1).mean().item(), rel=1e-6)


@pytest.mark.parametrize("contrast", ["safe-reasoning", "harmful-benign"])
def test_the_shuffled_control_has_the_length_and_not_the_direction(build, contrast):
    source, target = pair(build, noise=1.0)
    asked = {"source": source, "target": target, "contrast": contrast, "span": "last_prompt"}
    vector = vector_from_stores(**asked)
    controls = [vector_from_stores(**asked, shuffled=seed) for seed in range(8)]
    for site in SITES:
        true = vector.values[site]
        cosines = [torch.cosine_similarity(control.values[site], true, dim=0).item() for control in controls]
        for control in controls:
            assert control.values[site].norm().item() == pytest.approx(true.norm().item(), rel=1e-5)
        assert abs(sum(cosines) / len(cosines)) < 0.45 and max(cosines) < 0.99
    assert controls[3].header["control"] == "shuffled labels" and controls[3].header["seed"] == 3
    again = vector_from_stores(**asked, shuffled=3)
    assert torch.equal(again.values["resid_post.1"], controls[3].values["resid_post.1"])


def test_random_directions_have_the_length_at_every_site_and_nothing_else(build):
    source, target = pair(build)
    vector = vector_from_stores(source=source, target=target, contrast="harmful-benign", span="last_prompt")
    made = random_vectors(vector, 20, seed=4)
    assert len({float(one.values["resid_post.1"][0]) for one in made}) == 20
    for site in SITES:
        cosines = torch.stack([torch.cosine_similarity(one.values[site], vector.values[site], dim=0) for one in made])
        assert cosines.mean().abs() < 0.25 and cosines.abs().max() < 0.95
        for one in made:
            assert one.values[site].norm().item() == pytest.approx(vector.values[site].norm().item(), rel=1e-5)
            assert one.scale == vector.scale and one.header["control"] == "random direction"
    assert torch.equal(random_vectors(vector, 2, seed=4)[1].values[site], made[1].values[site])


def test_a_vector_survives_its_file(build, tmp_path):
    source, target = pair(build)
    vector = vector_from_stores(source=source, target=target, span="last_prompt", where={"split": ["train", "dev"]})
    vector.save(tmp_path / "v.safetensors")
    loaded = type(vector).load(tmp_path / "v.safetensors")
    assert loaded.header == vector.header and loaded.scale == vector.scale
    assert all(torch.equal(loaded.values[site], vector.values[site]) for site in SITES)


def test_a_site_without_a_difference_is_left_out_and_said(build, caplog):
    def same_embedding(hidden, index):
        hidden[:, 0] = torch.linspace(1, 2, 12)

    store = build(signal=SITES, spoil=same_embedding)
    with caplog.at_level(logging.WARNING):
        vector = vector_from_stores(source=store, target=store, contrast="harmful-benign", span="last_prompt")
    assert vector.sites == ("resid_post.1",) == tuple(vector.scale)
    assert "zero at resid_post.0, which the vector leaves out" in caplog.text
    with pytest.raises(ValueError, match="Are source and target one model"):
        vector_from_stores(source=store, target=store, span="last_prompt")


def lose_a_row(hidden, index):
    index.loc[7, "ids_sha"] = "other tokens"


def lose_a_class(hidden, index):
    index["harmful"] = pd.array([True] * len(index), dtype="boolean")


def lose_a_number(hidden, index):
    hidden[9, 1, 2] = float("nan")


@pytest.mark.parametrize(
    ("spoil", "contrast", "message"),
    [
        (lose_a_row, "safe-reasoning", "the stores differ in 2 rows of span 'last_prompt', the first of prompt 'p7'"),
        (lose_a_class, "harmful-benign", "none of 270 rows has harmful == False"),
        (lose_a_number, "safe-reasoning", r"prompt 'p9' at resid_post\.1"),
        (None, "safe-benign", "unknown contrast 'safe-benign'; known are safe-reasoning, harmful-benign, refused-complied"),
        (None, "refused-complied", "no column 'refused'"),
    ],
)
def test_what_makes_no_vector_is_said(build, spoil, contrast, message):
    source, target = pair(build, spoil)
    with pytest.raises(ValueError, match=message):
        vector_from_stores(source=source, target=target, contrast=contrast, span="last_prompt")


def test_stores_of_other_sites_are_not_compared(build):
    with pytest.raises(ValueError, match=r"source resid_post\.0; target resid_post\.1"):
        vector_from_stores(source=build(signal={"resid_post.0": 1.0}), target=build(signal={"resid_post.1": 1.0}), span="last_prompt")
