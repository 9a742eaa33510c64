"""steer() and monitor(): changing hidden states while a model runs, and reading probes in the same pass. The work is in steering.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .edits import Edit, Strength, Unit, edits_of
from .gates import Gate, ProbeGate, leaves
from .provenance import check_made_for
from .readouts import Readout
from .steering import Steering
from .triggers import Trigger
from .vector import Vector
from .watching import Held, Seen

if TYPE_CHECKING:
    from .model import LensModel

__all__ = ["Edit", "Held", "Seen", "Steering", "Trigger", "Vector", "monitor", "steer"]


def steer(
    lens: LensModel,
    how: Vector | Edit | Sequence[Edit],
    *,
    strength: Strength | None = None,
    spans: str | Sequence[str] | None = None,
    gate: Gate | None = None,
    operator: str | None = None,
    unit: Unit | None = None,
    rows: Sequence[int] | Sequence[bool] | Tensor | None = None,
    probes: Mapping[str, Readout] | None = None,
    triggers: Sequence[Trigger] = (),
    on_token: Callable[[Seen], None] | None = None,
    foreign: bool = False,
) -> AbstractContextManager[Steering]:
    """Steer `lens` inside a with-block.

    how        a vector, with the keywords up to `unit` as in Edit; or one or several Edits, which say these themselves
    rows       per row (in generate: per prompt) True or False, or which edit it carries: 0 none, 1 the first, …; left out, every row all
    probes     name -> a Probe, or anything with weight, bias and site: read at every token in the same pass, see `steering.watched`
    triggers   what happens when a gate opens (triggers.py)
    on_token   called after every forward with what was read (Seen); this copies from the device, so it is for interactive use
    foreign    steer although a vector or probe was made for another model; how they differ is logged

    Everything that can be wrong with what is asked is a ValueError before the first token: a vector of another width or model, a site this
    model does not have, a span or gate that cannot be followed. On leaving it is one if steering was on, tokens went by and not one was
    steered. RuntimeError if the model is being steered already, or run by two threads at once.
    """
    _check_kinds(lens, probes or {}, triggers)
    edits = edits_of(how, {"strength": strength, "spans": spans, "gate": gate, "operator": operator, "unit": unit})
    if not edits:
        raise ValueError("there is nothing to steer with. Pass a Vector or an Edit; to read probes alone use monitor().")
    check_meant_for(lens, edits, probes or {}, triggers, foreign=foreign)
    steering = Steering(lens, edits, probes=probes or {}, triggers=triggers, on_token=on_token)
    steering.rows = rows
    return _installed(steering)


def monitor(
    lens: LensModel,
    probes: Mapping[str, Readout],
    *,
    triggers: Sequence[Trigger] = (),
    on_token: Callable[[Seen], None] | None = None,
    foreign: bool = False,
) -> AbstractContextManager[Steering]:
    """Read probes at every token that `lens` writes inside a with-block, without steering it; see steer().

    generate() leaves the readouts of each prompt in `steering.watched`. ValueError where nothing is read and nothing triggered.
    """
    _check_kinds(lens, probes, triggers)
    if not probes and not triggers:
        raise ValueError("there is nothing to monitor. Pass probes={name: probe}, or triggers.")
    if waiting := [str(trigger) for trigger in triggers if trigger.do == "steer"]:
        raise ValueError(f"{waiting[0]!r} is to set steering off, and monitor() steers nothing. Use steer(lens, vector, triggers=…).")
    check_meant_for(lens, (), probes, triggers, foreign=foreign)
    return _installed(Steering(lens, (), probes=probes, triggers=triggers, on_token=on_token))


def _check_kinds(lens: LensModel, probes: Mapping[str, Readout], triggers: Sequence[Trigger]) -> None:
    """TypeError for what is easily taken for what is wanted."""
    if not hasattr(lens, "inner"):
        raise TypeError(f"a LensModel is steered, not a {type(lens).__name__}. Make one with load(path), or wrap(model, processor).")
    if not isinstance(probes, Mapping):
        raise TypeError(f"probes is a mapping of names to probes, as in {{'unsafe': probe}}, not a {type(probes).__name__}")
    if isinstance(triggers, Trigger):
        raise TypeError("triggers is a sequence of them: write triggers=[Trigger(…)]")


def check_meant_for(
    lens: LensModel, edits: Sequence[Edit], probes: Mapping[str, Readout], triggers: Sequence[Trigger], *, foreign: bool
) -> None:
    """ValueError where a vector or a probe says that it was made for another model; a warning where `foreign` allows it."""
    for edit in edits:
        check_made_for(lens, edit.vector.header.get("made_for", {}), f"the vector {edit.vector.source!r}", foreign=foreign)
    read: dict[str, Any] = {f"the probe {name!r}": probe for name, probe in probes.items()}
    gates = [*(edit.gate for edit in edits), *(trigger.when for trigger in triggers)]
    read |= {f"the probe of the gate {leaf}": leaf for gate in gates for leaf in leaves(gate) if isinstance(leaf, ProbeGate)}
    for what, probe in read.items():
        check_made_for(lens, getattr(probe, "made_for", {}), what, foreign=foreign)


@contextmanager
def _installed(steering: Steering) -> Iterator[Steering]:
    with ExitStack() as undo:
        steering._install(undo)
        yield steering
        steering._check_fired()
