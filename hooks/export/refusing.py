"""What cannot be taken out of the running model: told before anything is written, with the reason and the nearest exact alternative.

A rule says when it applies to an edit at one of its sites. Those that hold for every target are here, beside those of the targets that
write into weights and of those that add behind a block; what one target alone cannot do stands in its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from ..edits import Edit
from ..gates import Always
from ..sites import Site
from .placing import RESIDUAL, behind, projection, rewritten

if TYPE_CHECKING:
    from ..model import LensModel


class CannotExport(ValueError):
    """An edit that a target cannot express.

    reasons   one a rule and edit: why, and what to do instead
    """

    def __init__(self, message: str, reasons: Sequence[str]) -> None:
        super().__init__(message)
        self.reasons = tuple(reasons)


@dataclass(frozen=True, eq=False)
class Asked:
    """One edit at one of its sites, among all `edits` that go to a target together."""

    lens: LensModel
    target: str
    edits: tuple[Edit, ...]
    edit: Edit
    site: Site

    def words(self) -> dict[str, Any]:
        """What the text of a rule may name."""
        lens, edit, layer = self.lens, self.edit, self.site.layer
        return {
            "target": self.target,
            "model": lens.name,
            "family": lens.model.config.model_type,
            "text": lens.text_config.model_type,
            "site": self.site,
            "layer": layer,
            "before": layer - 1,
            "attention": lens.blocks[layer].site,
            "operator": edit.operator,
            "gate": edit.gate,
            "spans": ", ".join(edit.where),
        }


@dataclass(frozen=True)
class Rule:
    """when it applies; why that cannot be exported; what can be, instead. Both texts may name what Asked.words() holds."""

    when: Callable[[Asked], bool]
    why: str
    instead: str


def refuse(lens: LensModel, edits: Sequence[Edit], target: str, rules: Sequence[Rule], together: Sequence[Rule] = ()) -> None:
    """CannotExport with every reason there is: the first rule that applies to each edit and site.

    together   rules about all edits at once, asked where no other applies, of each site likewise
    """
    for some in (rules, together):
        if reasons := list(dict.fromkeys(_reasons(lens, tuple(edits), target, some))):
            raise CannotExport(f"this cannot be exported as {target}. {' '.join(reasons)}", reasons)


def _reasons(lens: LensModel, edits: tuple[Edit, ...], target: str, rules: Sequence[Rule]) -> Iterator[str]:
    for edit in edits:
        broken: dict[Rule, list[Asked]] = {}
        for site in lens.expand(edit.vector.sites):
            asked = Asked(lens, target, edits, edit, site)
            if (rule := next((rule for rule in rules if rule.when(asked)), None)) is not None:
                broken.setdefault(rule, []).append(asked)
        for rule, (first, *others) in broken.items():
            also = f", and at {len(others)} more of its sites" if others else ""
            yield f"{edit}: {rule.why.format(**first.words())}{also}. {rule.instead.format(**first.words())}."


EVERY = (
    Rule(
        lambda asked: asked.edit.gate != Always(),
        "the gate {gate} decides token by token, and what is exported acts on every token",
        "Keep it in the running model with steer(), or export it with gate=Always()",
    ),
    Rule(
        lambda asked: "all" not in asked.edit.where,
        "it acts on {spans} alone, and what is exported acts on every token",
        'Keep it in the running model with steer(), or export it with spans="all" (--spans all) where that is what you want',
    ),
    Rule(
        lambda asked: asked.edit.strengths.ndim > 0,
        "it has a strength per row, and what is exported has one for all requests",
        "Export it once with each strength",
    ),
    Rule(
        lambda asked: not bool(asked.edit.strengths.any()),
        "its strength is 0, so the export would be the unsteered model",
        "Leave this edit out, or give it a strength",
    ),
)


def _home(asked: Asked) -> Site | None:
    return rewritten(asked.edit, asked.site)


def _linear(asked: Asked) -> nn.Module | None:
    home = _home(asked)
    return None if home is None else projection(asked.lens, home)


def _norm(asked: Asked) -> bool:
    home = _home(asked)
    if home is None:
        return False
    block = asked.lens.blocks[home.layer]
    return bool(block.mlp_adds if home.name == "mlp_out" else block.attention_adds)


def _gated(asked: Asked) -> bool:
    """Whether what the MLP writes that would carry it is multiplied before it joins the residual."""
    home = _home(asked)
    return home is not None and bool(asked.lens.blocks[home.layer].mlp_gate)


def _plain(asked: Asked) -> bool:
    """Whether its projection is a linear map with its weight in memory."""
    found = _linear(asked)
    return type(found) is nn.Linear and not found.weight.is_meta


def _moved(asked: Asked) -> bool:
    """Whether the edit is carried out elsewhere than at its own site."""
    return _home(asked) != asked.site


def _crossing(asked: Asked) -> bool:
    """Whether a layer on either side of resid_pre does not run in a batch without pictures."""
    layers = (asked.site.layer - 1, asked.site.layer)
    return asked.site.name == "resid_pre" and any(asked.lens.blocks[layer].site == "cross_attn_out" for layer in layers if layer >= 0)


def _shared(asked: Asked) -> bool:
    linear: Any = _linear(asked)
    at = linear.weight.data_ptr()
    return sum(weight.data_ptr() == at for _, weight in asked.lens.model.named_parameters(remove_duplicate=False)) > 1


WEIGHTS = (
    *EVERY,
    Rule(
        lambda asked: any(name.endswith(".base_layer") for name, _ in asked.lens.model.named_modules()),
        "{model} holds an adapter already, and an export belongs to plain weights",
        "Merge that adapter into a checkpoint first (PEFT's merge_and_unload, then save_pretrained) and load the checkpoint",
    ),
    Rule(
        lambda asked: asked.edit.unit == "local",
        'unit "local" counts in lengths of the hidden state, which is no linear map of it',
        'Use unit="measured", or the target vllm-lens, which knows norm_match',
    ),
    Rule(
        lambda asked: asked.site.name in RESIDUAL and asked.edit.operator != "add",
        "at {site} {operator} reads the whole residual, which no single weight writes",
        "Use {operator} at {attention}.{layer} and mlp_out.{layer}, on what the layer writes into the residual: that is exact in weights",
    ),
    Rule(
        lambda asked: _home(asked) is None,
        "{site} is the embeddings, of words and pictures alike, and no projection writes them",
        "Use add at resid_post.0, or keep it in the running model with steer()",
    ),
    Rule(
        _crossing,
        "layers beside {site} do not run in a batch without pictures, so no bias of theirs is always added there",
        "Use add at mlp_out of a self-attention layer, or keep it in the running model with steer()",
    ),
    Rule(
        _norm,
        "in {family} a norm stands between the output projection and {site}, so no weight writes what is read there",
        "Export add as gguf, easysteer or vllm-lens where it acts at resid_post; keep other operators in the running model with steer()",
    ),
    Rule(
        lambda asked: _moved(asked) and _gated(asked),
        "{family} multiplies what the MLP of that layer writes with a gate, so its bias is not what is added at {site}",
        "Use add at resid_post of a self-attention layer",
    ),
    Rule(
        lambda asked: _moved(asked) and not asked.lens.family.sums,
        "in {family} resid_post is not resid_pre + attention + MLP, so a bias of the MLP is not what is added at {site}",
        "Export it as easysteer or vllm-lens, which add behind the block",
    ),
    Rule(
        lambda asked: _linear(asked) is None,
        "the MLP that would carry {site} is a mixture of experts, which has no single output projection",
        "Use {attention}.{layer} alone, or a layer with a plain MLP; add at resid_post can be exported as gguf, easysteer or vllm-lens",
    ),
    Rule(
        lambda asked: not _plain(asked),
        "the output projection at {site} is no plain weight in memory (quantized, offloaded or replaced)",
        "Load {model} without quantize= and with room for all of it, export from there",
    ),
    Rule(
        _shared,
        "the output projection at {site} shares its weight with another part of {model}, which would change too",
        "Keep it in the running model with steer()",
    ),
)

BLOCKS = (
    *EVERY,
    Rule(
        lambda asked: asked.edit.operator != "add",
        "{target} adds a vector behind a block, and {operator} depends on the hidden state",
        "Use operator add; or export {operator} at {attention}.{layer} and mlp_out.{layer} as lora or merged",
    ),
    Rule(
        lambda asked: behind(asked.site) is None,
        "{target} adds behind a block, and what is added at {site} goes through the MLP of its block first",
        "Use add at resid_post.{layer}, or export it as lora or merged",
    ),
    Rule(
        lambda asked: behind(asked.site) == -1,
        "{site} is the embeddings, and {target} adds behind a block",
        "Use add at resid_post.0, or keep it in the running model with steer()",
    ),
    Rule(
        _crossing,
        "layers beside {site} do not run in a batch without pictures, so nothing that is added behind them is always added there",
        "Use add at resid_post of a self-attention layer",
    ),
    Rule(
        lambda asked: asked.site.name == "mlp_out" and (bool(asked.lens.blocks[asked.site.layer].mlp_gate) or not asked.lens.family.sums),
        "in {family} what the MLP of layer {layer} writes is not simply added, so adding behind the block is another sum",
        "Use add at resid_post.{layer}",
    ),
)

NOT_LOCAL = Rule(
    lambda asked: asked.edit.unit == "local",
    'unit "local" counts in lengths of the hidden state, and {target} adds the same vector everywhere',
    'Use unit="measured", or the target vllm-lens, which knows norm_match',
)
