"""Every prompt as a point: axes of the train rows of all models, test rows drawn, what is missing left out and said."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score
from thoughtlens.experiments.asked import Unanswered
from thoughtlens.experiments.projecting import COLUMNS, ORDER, projection
from thoughtlens.hooks.shards import writing
from thoughtlens.hooks.store import Store

SITES, WIDTH = ("resid_post.0", "mlp_out.0", "resid_post.3"), 6
SPANS = ("thought", "last_prompt")
SIDES = ("train", "train", "dev", "test")
LABELS: tuple[bool | None, ...] = (True, False)


def store(
    folder: Path,
    model: str,
    *,
    spans: Sequence[str] = SPANS,
    sides: Sequence[str] = SIDES,
    labels: Sequence[bool | None] = LABELS,
    n: int = 96,
    constant: str = "",
) -> Store:
    """Random states in which harm moves one axis at resid_post.3; models differ by a shift."""
    rng = np.random.default_rng(len(model))
    blocks, rows = [], []
    for span in spans:
        x = rng.normal(size=(n, len(SITES), WIDTH)) * np.arange(1, WIDTH + 1) + len(model)
        for number in range(n):
            bad, side = labels[number % len(labels)], sides[number // 2 % len(sides)]
            x[number, 2, 0] += 2.0 * bool(bad)
            rows.append(
                {
                    **{"prompt_id": f"p{number}", "model": model, "written_by": "m", "condition": "unsteered", "split": side},
                    **{"group": f"g{number}", "harmful": bad, "span": span, "pool": "mean", "start": 3, "stop": 4, "order": len(rows)},
                    "ids_sha": f"{number:x}",
                }
            )
        x[:, [site == constant for site in SITES]] = 1.5
        blocks.append(x)
    index = pd.DataFrame(rows).astype({"harmful": "boolean"})
    with writing(folder / model, {"model": model, "sites": list(SITES), "width": WIDTH, "fingerprint": model}) as made:
        made.write(0, torch.from_numpy(np.concatenate(blocks)).float(), index)
        return made.finish()


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, Store]:
    return {model: store(tmp_path, model) for model in ("base", "safe!")}


def states(several: dict[str, Store], span: str, site: str, split: str) -> tuple[np.ndarray, pd.DataFrame]:
    parts = [one.numpy({"span": span, "split": split}, sites=[site]) for one in several.values()]
    return np.concatenate([x[:, 0] for x, _ in parts]), pd.concat([index for _, index in parts], ignore_index=True)


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("site", ["resid_post.0", "resid_post.3"])
def test_points_are_those_of_scikit_learn_on_all_models_together(stores: dict[str, Store], span: str, site: str) -> None:
    table = projection(stores, SPANS)
    x, of_train = states(stores, span, site, "train")
    shown, of_test = states(stores, span, site, "test")
    y = of_train.harmful.to_numpy(dtype=bool)
    pca = PCA(2).fit(x)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, y)
    expected = {"pca": pca.transform(shown)[:, 0], "lda": (shown - x.mean(0)) @ lda.coef_[0] / np.linalg.norm(lda.coef_)}
    for method, along in expected.items():
        mine = table[(table.span == span) & (table.site == site) & (table.method == method)].set_index(["model", "prompt_id"])
        mine = mine.loc[list(zip(of_test.model, of_test.prompt_id, strict=True))]
        turned = np.sign(np.corrcoef(mine.x, along)[0, 1])
        assert mine.x.to_numpy() == pytest.approx(turned * along, abs=1e-3)
        if method == "pca":
            assert mine[["share_x", "share_y"]].drop_duplicates().to_numpy().tolist() == [
                pytest.approx(pca.explained_variance_ratio_.tolist(), rel=1e-4)
            ]
        else:
            assert turned == 1 and mine.share_y.isna().all()
            assert mine.share_x.unique().tolist() == [pytest.approx(roc_auc_score(of_test.harmful.to_numpy(dtype=bool), mine.x))]


def test_rows_are_sorted_and_only_test_is_drawn(stores: dict[str, Store]) -> None:
    table = projection(stores, SPANS)
    assert tuple(table.columns) == COLUMNS and set(table.split) == {"test"} and set(table.site) == {"resid_post.0", "resid_post.3"}
    assert len(table) == 2 * 2 * 2 * 2 * 24 and set(table.layer) == {0, 3}
    pd.testing.assert_frame_equal(table, table.sort_values(ORDER, ignore_index=True))
    few = projection(stores, ("last_prompt", "step_end[0]"))
    pd.testing.assert_frame_equal(few, table[table.span == "last_prompt"].reset_index(drop=True))


def test_reading_few_sites_at_a_time_changes_nothing(stores: dict[str, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    table = projection(stores, SPANS)
    monkeypatch.setattr("thoughtlens.experiments.projecting.BYTES", 1)
    pd.testing.assert_frame_equal(projection(stores, SPANS), table)


def test_dev_is_drawn_where_there_is_no_test(tmp_path: Path) -> None:
    assert set(projection({"m": store(tmp_path, "m", sides=("train", "dev"))}, SPANS).split) == {"dev"}


def test_a_model_that_lacks_a_moment_is_not_drawn_there(tmp_path: Path) -> None:
    stores = {"base": store(tmp_path, "base"), "late": store(tmp_path, "late", spans=("thought",))}
    drawn = projection(stores, SPANS).groupby("span").model.unique()
    assert list(drawn["last_prompt"]) == ["base"] and list(drawn["thought"]) == ["base", "late"]


def test_prompts_without_a_label_are_drawn_and_fit_nothing(tmp_path: Path) -> None:
    labelled = projection({"m": store(tmp_path / "a", "m", labels=(True, False))}, SPANS)
    assert len(labelled) == len(projection({"m": store(tmp_path / "b", "m", labels=(True, False, None))}, SPANS))
    some = projection({"m": store(tmp_path / "c", "m", labels=(True, None))}, SPANS)
    assert set(some.method) == {"pca"} and len(some) == len(labelled) / 2


def test_what_a_run_lacks_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unanswered, match="the splits are dev, test; split before capturing"):
        projection({"m": store(tmp_path / "a", "m", sides=("dev", "test"))}, SPANS)
    with pytest.raises(Unanswered, match="the splits are none"):
        projection({"m": store(tmp_path / "b", "m", sides=("",))}, SPANS)
    with pytest.raises(Unanswered, match=r"no moment of step_end\[9\] has 3 train prompts"):
        projection({"m": store(tmp_path / "c", "m")}, ["step_end[9]"])
    with caplog.at_level(logging.WARNING), pytest.raises(Unanswered, match="no moment of thought has"):
        projection({"m": store(tmp_path / "d", "m", n=6, sides=("train", "test", "test"))}, ["thought"])
    assert "nothing is drawn at thought: 2 train and 4 test prompts" in caplog.text


def test_a_site_at_which_all_rows_are_alike_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alike = store(tmp_path, "m", constant="resid_post.0")
    with caplog.at_level(logging.WARNING):
        table = projection({"m": alike}, ["thought"])
    assert set(table.site) == {"resid_post.3"} and "nothing is drawn at thought, resid_post.0: all train prompts are alike" in caplog.text


def test_one_label_among_the_drawn_rows_has_no_auroc(tmp_path: Path) -> None:
    """Train has both labels, test only harmful prompts."""
    sides = ("train", "test")
    folder = store(tmp_path, "m", sides=sides, labels=(True, False, True, True))
    table = projection({"m": folder}, ["thought"])
    assert all(math.isnan(share) for share in table[table.method == "lda"].share_x) and set(table.method) == {"pca", "lda"}
