"""Controls carry no signal where there is none, and find what words, lengths and memory alone tell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from thoughtlens.probes import mean_difference
from thoughtlens.probes.controls import (
    PENALTIES,
    TFIDF_PENALTIES,
    WORDS,
    bag_of_words,
    control_task,
    lengths,
    permutation_p,
    prompt_types,
    random_directions,
    shuffle_labels,
    tfidf,
    words,
)
from thoughtlens.probes.metrics import auroc, intervals, resamples


def test_labels_of_a_group_stay_together():
    groups = np.repeat([f"g{i}" for i in range(20)], 5)
    y = torch.tensor(np.repeat(np.arange(20) < 8, 5))
    shuffled = shuffle_labels(y, groups, 30, seed=1)
    assert shuffled.shape == (30, 100) and (shuffled.sum(1) == y.sum()).all()
    blocks = shuffled.reshape(30, 20, 5)
    assert (blocks == blocks[..., :1]).all()
    assert not (shuffled == y).all(1).any()
    agreement = (shuffled == y).double().mean().item()
    assert agreement == pytest.approx(0.4**2 + 0.6**2, abs=0.05)


def test_twins_keep_one_of_each_and_lose_which():
    groups = np.repeat([f"g{i}" for i in range(200)], 2)
    y = torch.tensor([True, False] * 200)
    shuffled = shuffle_labels(y, groups, 20, seed=2)
    assert (shuffled.reshape(20, 200, 2).sum(-1) == 1).all()
    assert (shuffled == y).double().mean().item() == pytest.approx(0.5, abs=0.03)


def test_groups_of_any_size_in_any_order_keep_the_count():
    rng = np.random.default_rng(0)
    groups, y = rng.choice(list("abcdefgh"), size=101), torch.from_numpy(rng.random(101) < 0.3)
    shuffled = shuffle_labels(y, groups, 200, seed=3)
    assert (shuffled.sum(1) == y.sum()).all()
    assert (shuffled.double().mean(0) - 0.3).abs().max() < 0.15


def test_the_seed_decides():
    groups, y = np.array(list("aabbccddee")), torch.tensor([True, False] * 5)
    assert torch.equal(shuffle_labels(y, groups, 4, seed=1), shuffle_labels(y, groups, 4, seed=1))
    assert not torch.equal(shuffle_labels(y, groups, 4, seed=1), shuffle_labels(y, groups, 4, seed=2))


def sides(write, n: int = 120) -> tuple[dict[str, list[str]], dict[str, torch.Tensor]]:
    rng = np.random.default_rng(4)
    texts, labels = {}, {}
    for side in ("train", "dev", "test"):
        y = rng.random(n) < 0.5
        texts[side] = [write(bool(harmful), rng) for harmful in y]
        labels[side] = torch.from_numpy(y)
    return texts, labels


def test_finds_a_word_that_gives_the_label_away():
    found = bag_of_words(*sides(lambda harmful, rng: f"{rng.choice(['a', 'b', 'c'])} {'must-refuse!' if harmful else 'go on'}"))
    assert found == {"dev": 1.0, "test": 1.0}


def test_finds_what_only_pairs_of_words_tell():
    def exclusive_or(harmful: bool, rng: np.random.Generator) -> str:
        first, other = rng.choice([["x", "y"], ["y", "x"]])
        return f"{first} {first if harmful else other}"

    found = bag_of_words(*sides(exclusive_or))
    assert found["test"] == 1.0


def test_words_that_tell_nothing_are_at_chance():
    found = bag_of_words(*sides(lambda harmful, rng: " ".join(rng.choice(list("abcdef"), size=5)), n=300))
    assert found["test"] == pytest.approx(0.5, abs=0.12)
    assert bag_of_words(*sides(lambda harmful, rng: "  ")) == {"dev": 0.5, "test": 0.5}


def test_test_labels_choose_nothing():
    texts, labels = sides(lambda harmful, rng: " ".join(rng.choice(list("abcdefgh"), size=4)))
    found = bag_of_words(texts, labels)
    turned = bag_of_words(texts, {**labels, "test": ~labels["test"]})
    assert turned["dev"] == found["dev"] and turned["test"] == pytest.approx(1 - found["test"])


@pytest.mark.parametrize(("ours", "reader", "penalties", "spans"), [
    (words, CountVectorizer(token_pattern=WORDS), PENALTIES, [(1, 1), (1, 2)]),
    (tfidf, TfidfVectorizer(token_pattern=WORDS), TFIDF_PENALTIES, [(1, 2)]),
])  # fmt: skip
def test_scores_are_those_of_scikit_learns_search_with_dev_as_its_fold(ours, reader, penalties, spans):
    texts, labels = sides(lambda harmful, rng: " ".join(rng.choice(list("abcdef") + ["bad"] * harmful, size=4)))
    found = ours(texts, labels)
    model = make_pipeline(reader, LogisticRegression(max_iter=1000))
    name = type(reader).__name__.lower()
    grid = [{f"{name}__ngram_range": [span], "logisticregression__C": list(penalties)} for span in spans]
    fold = PredefinedSplit([-1] * 120 + [0] * 120)
    search = GridSearchCV(model, grid, scoring="roc_auc", cv=fold, refit=False)
    search.fit(texts["train"] + texts["dev"], torch.cat([labels["train"], labels["dev"]]).numpy())
    theirs = model.set_params(**search.best_params_).fit(texts["train"], labels["train"].numpy())
    assert set(found) == {"dev", "test"}
    for side, scores in found.items():
        np.testing.assert_allclose(scores.numpy(), theirs.decision_function(texts[side]), atol=1e-9)
    assert search.best_score_ == pytest.approx(roc_auc_score(labels["dev"], found["dev"]))


def test_texts_without_a_word_score_zero():
    texts, labels = sides(lambda harmful, rng: "  ")
    for baseline in (words, tfidf):
        assert all(not scores.any() and len(scores) == 120 for scores in baseline(texts, labels).values())


def counted(seed: int = 0, n: int = 200) -> tuple[dict[str, np.ndarray], dict[str, torch.Tensor]]:
    rng = np.random.default_rng(seed)
    counts, labels = {}, {}
    for side in ("train", "dev", "test"):
        y = rng.random(n) < 0.4
        counts[side] = np.stack([rng.poisson(np.where(y, 14, 20)), rng.poisson(30, size=n)], axis=1)
        labels[side] = torch.from_numpy(y)
    return counts, labels


def test_one_length_separates_as_the_bare_count_does():
    counts, labels = counted()
    found = lengths({side: rows[:, :1] for side, rows in counts.items()}, labels)
    for side in ("dev", "test"):
        assert roc_auc_score(labels[side], found[side]) == pytest.approx(roc_auc_score(labels[side], -counts[side][:, 0]))
    flat = lengths({side: rows[:, 0] for side, rows in counts.items()}, labels)
    assert torch.equal(flat["test"], found["test"])


def test_lengths_are_a_logistic_regression_on_their_logarithms():
    counts, labels = counted()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(np.log(1 + counts["train"]), labels["train"].numpy())
    np.testing.assert_allclose(lengths(counts, labels)["test"].numpy(), model.decision_function(np.log(1 + counts["test"])), atol=1e-9)


def spread(n: int = 300, d: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sites with features of very different scale and place."""
    rng = np.random.default_rng(seed)
    y = torch.arange(n) % 3 == 0
    x = rng.normal(size=(2, n, d)) * 10.0 ** np.arange(-3, d - 3) + 50
    return torch.from_numpy(x), y


def test_random_directions_are_isotropic_once_standardised_and_turned_to_the_positives():
    x, y = spread()
    weight = random_directions(x, y, 4000, seed=1)
    scaled = weight * x.std(1, correction=0)[:, None]
    towards = (x[:, y].mean(1) - x[:, ~y].mean(1))[:, :, None]
    assert weight.shape == (2, 4000, 6) and (weight @ towards > 0).all()
    second_moment = scaled.mT @ scaled / 4000  # turning a direction around leaves it
    torch.testing.assert_close(second_moment, torch.eye(6).double().expand(2, 6, 6), atol=0.1, rtol=0)


def test_random_directions_are_the_same_whatever_else_is_fitted_beside():
    x, y = spread()
    together = random_directions(x, y, 5, seed=1)
    assert torch.equal(together[1:], random_directions(x[1:], y, 5, seed=1))
    assert not torch.equal(together, random_directions(x, y, 5, seed=2))
    other = torch.rand(6, generator=torch.Generator().manual_seed(0)).double() + 0.5
    torch.testing.assert_close(random_directions(x * other, y, 5, seed=1) * other, together)


def test_random_directions_do_not_read_constant_features():
    x, y = spread()
    x[..., 2] = 1 / 3
    weight = random_directions(x, y, 5)
    assert (weight[..., 2] == 0).all() and weight.isfinite().all() and (weight[..., 3] != 0).all()


def test_random_directions_find_a_class_that_fills_the_space_and_no_other():
    rng = np.random.default_rng(3)
    y = torch.arange(400) % 2 == 0
    noise = torch.from_numpy(rng.normal(size=(1, 400, 30)))
    fresh = torch.from_numpy(rng.normal(size=(1, 400, 30)))
    shift = 3.0 * y[:, None]
    for moved, least, most in ((0.0, 0.4, 0.6), (1.0, 0.75, 1.0)):
        weight = random_directions(noise + moved * shift, y, 50)[0]
        reached = auroc(weight @ (fresh + moved * shift)[0].T, y).mean()
        assert least < reached < most


TYPES = {"train": ["a", "a", "b", "c", "d", "d", "d"], "dev": ["d", "a"], "test": ["b", "e", "c", "f", "a"]}


def test_a_type_has_one_label_on_every_side_and_half_of_the_learned_types_are_positive():
    seen = set()
    for seed in range(40):
        labels = control_task(TYPES, seed)
        pairs = {(name, bool(label)) for side, names in TYPES.items() for name, label in zip(names, labels[side], strict=True)}
        assert len(pairs) == 6 and sum(label for _, label in pairs) == 3
        assert sum(label for name, label in pairs if name in "abcd") == 2
        seen.add(frozenset(name for name, label in pairs if label))
    assert len(seen) == 12  # 2 of 4 learned types, 1 of 2 others
    assert all(torch.equal(control_task(TYPES, 3)[side], control_task(TYPES, 3)[side]) for side in TYPES)


def test_a_control_task_needs_two_types():
    with pytest.raises(ValueError, match="two types"):
        control_task({"train": ["a", "a"], "test": ["b", "a"]})


def test_the_type_of_a_prompt_is_its_attack_and_category():
    index = pd.DataFrame({"attack": ["plain", "prefix"], "category": ["x", None], "split": ["train", "test"]})
    assert prompt_types(index) == ["plain|x", "prefix|"]
    assert prompt_types(index[["category"]]) == ["x", ""]
    assert prompt_types(index[["split"]]) == ["", ""]
    assert prompt_types(index, ("split",)) == ["train", "test"]


def test_selectivity_is_low_where_types_can_be_looked_up_and_high_where_only_the_label_is_written():
    rng = np.random.default_rng(5)
    types = {side: [f"t{i}" for i in rng.integers(0, 20, size=n)] for side, n in (("train", 400), ("test", 400))}
    truth = {side: torch.from_numpy(rng.random(400) < 0.5) for side in types}
    control = control_task(types, seed=1)

    def selectivity(write) -> tuple[float, float]:
        x = {side: torch.from_numpy(write(side) + 0.1 * rng.normal(size=(400, 21))) for side in types}
        reached = []
        for labels in (truth, control):
            weight, bias = mean_difference.fit(x["train"][None], labels["train"][None], [float("nan")])
            says = x["test"] @ weight[0, 0, 0] + bias[0, 0, 0] > 0
            reached.append((says == labels["test"]).double().mean().item())
        return reached[0] - reached[1], reached[1]

    one_hot = {side: np.pad(np.eye(20)[[int(name[1:]) for name in names]], ((0, 0), (0, 1))) for side, names in types.items()}
    written = {side: np.eye(21)[[20] * 400] * truth[side].numpy()[:, None] for side in types}
    low, memorised = selectivity(lambda side: one_hot[side] + written[side])
    high, forgotten = selectivity(lambda side: written[side])
    assert memorised > 0.95 and low < 0.05
    assert forgotten < 0.65 and high > 0.35


def test_the_permutation_p_counts_by_hand():
    control = torch.tensor([[0.5, 0.6, 0.7, 0.8], [0.5, 0.5, 0.5, 0.5]])
    assert permutation_p(torch.tensor([0.7, 0.9]), control).tolist() == pytest.approx([3 / 5, 1 / 5])
    assert permutation_p(torch.tensor([0.7]), torch.empty(1, 0)).isnan().all()


ROUNDS = 300


def plausible(hits: int, rate: float, rounds: int = ROUNDS) -> bool:
    return binomtest(hits, rounds, rate).pvalue > 0.001


def unsignalled(
    rng: np.random.Generator, groups: int = 60, per_group: int = 3, d: int = 8
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Hidden states that share much within a group and nothing with the group's label."""
    x = np.repeat(rng.normal(size=(groups, d)), per_group, axis=0) + 0.3 * rng.normal(size=(groups * per_group, d))
    return (
        torch.from_numpy(x)[None],
        torch.from_numpy(np.repeat(rng.permutation(groups) % 2 == 0, per_group)),
        np.repeat(np.arange(groups), per_group),
    )


def test_shuffled_labels_cover_a_half_at_their_rate():
    """The interval of a probe on shuffled labels holds 0.5 in 95 of 100 draws, and a true label that tells nothing has a p below 0.05 in 5."""
    rng = np.random.default_rng(6)
    covered = found = 0
    for seed in range(ROUNDS):
        x, y, groups = unsignalled(rng)
        test, truth, test_groups = unsignalled(rng)
        labellings = torch.cat([y[None], shuffle_labels(y, groups, 19, seed)])
        weight, bias = mean_difference.fit(x, labellings, [float("nan")])
        scores = weight[0, 0] @ test[0].T + bias[0, 0, :, None]
        low, high = intervals(auroc, scores[1:2], truth, resamples(test_groups, 200, seed), test_groups)
        covered += bool(low <= 0.5 <= high)
        reached = auroc(scores, truth)
        found += bool(permutation_p(reached[0], reached[1:]) <= 0.05)
    assert plausible(covered, 0.95) and plausible(found, 0.05), (covered, found)
