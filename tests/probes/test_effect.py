"""What one token takes back: the same figures from plain transformers and scipy, and choices that dev alone makes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from thoughtlens.hooks.capture import encode_transcripts
from thoughtlens.probes.boundaries import read_boundaries, spread
from thoughtlens.probes.effect import CONTRASTS, PATCHED, RANDOM, chosen, effects, settings, steering_vectors, swept, written
from tiny import tiny_lens, tiny_prompts, tiny_transcripts


@pytest.fixture(scope="module")
def pair():
    safe, writer = tiny_lens(seed=1), tiny_lens()
    transcripts = tiny_transcripts(writer, tiny_prompts(54, images=(0, 0, 0, 0, 0, 1)))
    read = read_boundaries(safe, writer, transcripts, sites=["resid_post.0", "resid_post.1"], progress=False)
    return safe, writer, transcripts, read


@pytest.fixture(scope="module")
def table(pair):
    return effects(*pair, ahead=3, draws=2, progress=False)


def logits(lens, ids, inputs, layer=None, at=0, delta=None):
    """Plain transformers, no cache; the hidden state of one token changed by a hook of our own."""
    batch = {
        k: v[:, : len(ids)] if v.ndim == 2 and v.shape[0] == 1 and v.shape[1] >= len(ids) else v for k, v in inputs.items() if v.ndim > 1
    }
    batch["input_ids"], batch["attention_mask"] = torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long)
    batch.pop("mm_token_type_ids", None)

    def change(_, args, out):
        hidden = (out[0] if isinstance(out, tuple) else out).clone()
        hidden[0, at] += delta
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    handles = [] if layer is None else [lens.layers[layer].register_forward_hook(change)]
    try:
        with torch.no_grad():
            return lens.model(**batch, use_cache=False).logits[0].double()
    finally:
        for handle in handles:
            handle.remove()


def test_a_row_is_what_plain_transformers_and_scipy_say(pair, table):
    safe, writer, transcripts, read = pair
    t = next(t for t in transcripts if t.prompt.split == "dev" and not t.prompt.images)
    rows = table[(table["prompt_id"] == t.id) & (table["step"] == 1)]
    vectors = steering_vectors(read)
    number = read.rows.index[(read.rows["prompt_id"] == t.id) & (read.rows["step"] == 1)][0]
    at = len(t.prompt_ids) + int(read.rows.loc[number, "position"])
    inputs = encode_transcripts(writer, [t]).inputs
    ids = [*t.prompt_ids, *t.output_ids][: at + 1]
    for _ in range(3):  # the safer model's own words, one whole forward each
        ids.append(int(logits(safe, ids, inputs)[-1].argmax()))
    words, ids = ids[at + 1 :], ids[:-1]
    assert rows["a_writes"].iloc[0] == safe.tokenizer.decode(words)
    p = logits(safe, ids, inputs)[at:].softmax(-1).numpy()

    def apart(delta=None, layer=None):
        q = logits(writer, ids, inputs, layer, at, delta)[at:].softmax(-1).numpy()
        return sum(jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True))

    before = apart()
    assert rows["before"].to_numpy() == pytest.approx(before, abs=1e-5)
    keyed = rows.set_index(["source", "site", "strength", "draw"])["closed"]
    tried = 0
    for i, site in enumerate(read.sites):
        deltas = {(PATCHED, site, 1.0, 0): read.a[number, i] - read.b[number, i]}
        deltas |= {(name, site, 2.0, 0): 2 * vectors[name, "step_end[1]"][i] for name in CONTRASTS}
        for key, delta in deltas.items():
            assert keyed[key] == pytest.approx(before - apart(delta, i), abs=1e-5)
            tried += abs(keyed[key]) > 1e-3
    assert tried == 6


def test_vectors_are_of_training_prompts_and_random_ones_as_long(pair):
    _, _, transcripts, read = pair
    vectors = steering_vectors(read)
    here = (read.rows["split"] == "train") & (read.rows["anchor"] == "step_end[0]")
    harmful, benign = ((here & (read.rows["harmful"] == label)).to_numpy(dtype=bool) for label in (True, False))
    wanted = read.a.numpy()[harmful].mean(0) - read.a.numpy()[benign].mean(0)
    np.testing.assert_allclose(vectors["harmful - benign", "step_end[0]"].numpy(), wanted, atol=1e-5)
    number = int(np.flatnonzero((read.rows["split"] == "dev") & (read.rows["anchor"] == "step_end[0]"))[0])
    made = settings(read, number, vectors, (1.0, 2.0), 3, seed=4)
    norms = made.facts.assign(norm=made.deltas.norm(dim=-1).numpy())
    of = norms[norms["source"] == "harmful - benign"].set_index(["site", "strength"])["norm"]
    drawn = norms[norms["source"] == RANDOM]
    assert sorted(drawn["draw"].unique()) == [0, 1, 2] and len(drawn) == 3 * len(of)
    for row in drawn.itertuples():
        assert row.norm == pytest.approx(of[row.site, row.strength], rel=1e-4)
    directions = made.deltas[torch.tensor(drawn.index.to_numpy())]
    assert len({tuple(row) for row in (directions / directions.norm(dim=-1, keepdim=True)).round(decimals=3).tolist()}) == 6
    other = int(np.flatnonzero((read.rows["split"] == "test") & (read.rows["anchor"] == "step_end[0]"))[0])
    again = settings(read, other, vectors, (1.0, 2.0), 3, seed=4)
    assert torch.equal(again.deltas[torch.tensor(drawn.index.to_numpy())], directions)  # every prompt is pushed the same way


def test_training_prompts_are_only_patched(table):
    assert set(table.loc[table["split"] == "train", "source"]) == {PATCHED}
    assert set(table.loc[table["split"] == "dev", "source"]) == {PATCHED, RANDOM, *CONTRASTS}
    assert (table["closed"] <= table["before"] + 1e-9).all()  # a divergence is not negative


def test_what_the_transcript_has_and_what_is_decoded_are_the_same_words(pair):
    _, writer, transcripts, _ = pair
    prompt = transcripts[0].prompt
    ids = torch.tensor([transcripts[0].prompt_ids])
    own = writer.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False)[
        0, ids.shape[1] :
    ].tolist()
    mixed = [*own[:5], (own[5] + 1) % 60, *own[6:]]  # the transcript leaves what the model would write after five words
    t = type(transcripts[0])(
        prompt,
        "m",
        prompt_ids=transcripts[0].prompt_ids,
        output_ids=tuple(mixed),
        text="",
        ended=False,
        status="unclosed",
        thought="",
        answer="",
    )
    begun = len(t.prompt_ids)
    for at, (words, hidden) in zip((begun - 1, begun + 3), written(writer, t, [begun - 1, begun + 3], 4), strict=True):
        prefix = torch.tensor([[*t.prompt_ids, *mixed][: at + 1]])
        theirs = writer.model.generate(input_ids=prefix, attention_mask=torch.ones_like(prefix), max_new_tokens=4, do_sample=False)
        assert words == theirs[0, at + 1 :].tolist() and len(hidden) == len(words)


def test_dev_alone_chooses_and_similar_changes_of_both_classes_do_not_count():
    def rows(split, source, strength, harmful, benign):
        about = {
            "split": split,
            "anchor": "step_end[0]",
            "step": 0,
            "source": source,
            "site": "resid_post.0",
            "strength": strength,
            "draw": 0,
        }
        return [
            {**about, "prompt_id": f"{split}{i}", "position": 3, "harmful": i < 2, "before": 0.5, "closed": harmful if i < 2 else benign}
            for i in range(4)
        ]

    style, mean, broad = (CONTRASTS[0], 1.0), (CONTRASTS[1], 1.0), (CONTRASTS[1], 2.0)
    dev = rows("dev", *style, 0.4, 0.4) + rows("dev", *mean, 0.3, 0.0) + rows("dev", *broad, 0.31, -0.3)
    test = rows("test", *style, 0.0, 0.0) + rows("test", *mean, 0.1, 0.0) + rows("test", *broad, 0.45, 0.0)
    table = pd.DataFrame(dev + test)
    told = swept(table).set_index(["split", "source", "strength"])
    assert told.loc[("dev", *style), "effect"] == pytest.approx(0) and told.loc[("dev", *mean), "effect"] == pytest.approx(0.3)
    assert told.loc[("dev", *broad), ["effect", "net"]].tolist() == pytest.approx([0.31, 0.01])
    assert told.loc[("dev", *mean), "share"] == pytest.approx(0.6) and (told["n"] == 4).all()
    stands = chosen(table)
    assert set(zip(stands["source"], stands["strength"], strict=True)) == {mean} and set(stands["split"]) == {"dev", "test"}
    with pytest.raises(ValueError, match="no boundary was steered on 'dev'"):
        chosen(table.assign(source=PATCHED))


def test_sites_are_spread_without_the_last_layer():
    lens = tiny_lens()
    assert spread(lens) == ["resid_post.0", "resid_post.1"] and spread(lens, 1) == ["resid_post.0"]
