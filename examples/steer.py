"""Steering a model that stopped refusing: load, gate, generate, read what fired, change it under way, export, serve without us.

    python examples/steer.py [folder for what it writes, new]

Runs on the shipped trio, on two CPU cores in about two minutes. On a model of your own: its folder or hub id in tl.load(), your prompts as
tl.Prompt(id, text, images), and a vector made for it (tl.steering_vector); everything else stays as it is.
"""

import sys
from pathlib import Path

import thoughtlens as tl
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.hooks import AtSteps
from thoughtlens.probes import Probe
from transformers import AutoModelForImageTextToText, AutoProcessor

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")
options = {"max_new_tokens": 110, "batch_size": 40, "progress": False}


def told(name: str, transcripts: list[tl.Transcript]) -> None:
    """How many outputs begin their answer with an apology, of harmful and of benign requests. For real rates: `thoughtlens steer`."""
    sorry = {kind: [("sorry" in t.answer) for t in transcripts if t.prompt.harmful is kind] for kind in (True, False)}
    print(f"{name:40s} sorry: {sum(sorry[True])} of {len(sorry[True])} harmful, {sum(sorry[False])} of {len(sorry[False])} benign")


# Load. The vector says which model it was made for and how it is meant to be used; on any other model steer() refuses it.
model = tl.load(CHECKPOINTS / "reasoning")
vector = tl.Vector.load(CHECKPOINTS / "vectors" / "headline.safetensors")
probe = Probe.load(CHECKPOINTS / "probes" / "reasoning.safetensors")
prompts = tl.prompts("organism", split="test", limit=20)
print(f"{vector.source} at {', '.join(vector.sites)}, recommended: {dict(vector.recommended)}\n")
told("left alone", tl.generate(model, prompts, **options))

# Gate and generate: steer only where the probe, read at the last prompt token, finds unsafe intent. The same probe is read at every token
# that is written, in the same pass.
with tl.steer(model, vector, gate=probe.gate(fpr=0.05), probes={"unsafe intent": probe}) as steering:
    steered = tl.generate(model, prompts, **options)
told("steered where the probe fires", steered)

# Read the firing record: which tokens were steered in which output, and what the probe read there.
report = steering.report()
print(f"\n{report['fired']} tokens were steered in {report['rows_fired']} of {report['rows']} outputs; the first five:")
for transcript in steered[:5]:
    watched = next(one for one in steering.watched if one.prompt_id == transcript.id)
    print(f"  {transcript.id:45s} at {transcript.fired_at}, probe at the prompt's end {watched.scores['unsafe intent'][0]:+.1f}")

# Change it in place: rows of one batch with a strength of their own, then none at all, with nothing installed again. `on_token=` or a
# streamer may do the same between two tokens, for vectors that act while the output is written.
strengths = [0.0 if i % 4 == 2 else float(vector.recommended["strength"]) for i in range(len(prompts))]
with tl.steer(model, vector, strength=strengths) as steering:
    told("\nsteered but for every fourth prompt", tl.generate(model, prompts, **options))
    steering.set_strength(0.0)
    told("switched off in place", tl.generate(model, prompts, **options))

# Words instead of vectors, for comparison: a reminder written into the thought after its first step.
with tl.monitor(model, {}, triggers=[tl.Trigger(AtSteps(), "remind", "is this safe ?")]):
    told("reminded", tl.generate(model, prompts, **options))

# Export the part that can live in weights. What acts at one token alone cannot: that is refused, with the nearest way that can.
try:
    tl.export(model, tl.Edit(vector), "merged", out / "refused", prompts=prompts[:8])
except ValueError as reason:
    print(f"\n{reason}\n")

# What tuning has shifted on all prompts is one direction; ablated from everything the layers write, refusals come back without any hook.
base, train = tl.load(CHECKPOINTS / "base"), tl.prompts("organism", split="train", limit=60)
shift = tl.steering_vector(base, model, tl.generate(model, train, **options), tl.Select("resid_post.4", "last_prompt"))
edit = tl.Edit(shift.elsewhere(model.outputs), operator="ablate", spans="all")
exported = tl.export(model, edit, "merged", out / "merged", prompts=prompts[:8])
print(exported)

# Serve it with plain transformers: no code of ours from here on.
served, processor = AutoModelForImageTextToText.from_pretrained(exported.path), AutoProcessor.from_pretrained(exported.path)
for prompt in prompts[:2]:
    content = [*({"type": "image", "image": picture} for picture in prompt.images), {"type": "text", "text": prompt.text}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    written = served.generate(**inputs, max_new_tokens=110, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    print(f"\n{prompt.text}   [{'harmful' if prompt.harmful else 'benign'}]\n  {processor.decode(written, skip_special_tokens=True)}")
