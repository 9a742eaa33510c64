"""Steering at work: hooks that are installed once, and the buffers that drive them.

    h'_t = h_t + Σ_e Δ_e(h_t, α_te)        Δ_e: what edit e does (operators.py);  α_te: how strongly at token t (amounts.py)

Before each forward the clock says what its tokens are, and the amounts are written. The hooks on the layers only read buffers, so that
strengths, rows, gates and the switch are in-place writes, which a compiled layer sees too. A probe adds a hook that reads at its site.

Where all amounts are 0 the hidden state keeps its bits. Rows that have ended and padding are neither steered nor counted.

Graphs that were compiled before would not know of the hooks, and run on unsteered without a word: they are dropped when steering begins,
and again when it ends, and the next call compiles anew.

Turner et al. 2023, "Steering language models with activation engineering"; Zou et al. 2023, "Representation engineering".
Shapes: `b` rows, `p` tokens of this forward, `n` rows or prompts that were given one by one, `e` edits.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from transformers import LogitsProcessor

from .amounts import Amounts, Shape
from .attach import place
from .buffers import Buffers, taken
from .clock import WHY_NOT_COMPILED, Clock
from .edits import Edit, Strength, check_fits, checked_strength
from .firing import Firing, RowRecord
from .gates import Always, ProbeGate, leaves
from .gating import Openings, counting, spans_asked
from .programs import Programs
from .reading import never_ran
from .readouts import Readout, readings
from .records import Prompt
from .triggers import Acting, Trigger
from .watching import Held, Seen, Watching

if TYPE_CHECKING:
    from .model import LensModel

log = logging.getLogger(__name__)


class Steering:
    """One active steering: what steer() and monitor() yield, and `lens.steering` while it lasts.

    edits      in the order they were given; triggers: likewise
    rows       which rows are steered, [n]: True or False, or 0 for none and i for the i-th edit alone; None: every row by every edit.
               One per row or, in generate, per prompt; read when a batch begins
    clock      what the tokens of the running forward are
    watched    the readouts of each prompt that was generated for, in the order they were finished
    """

    def __init__(
        self,
        lens: LensModel,
        edits: Sequence[Edit],
        *,
        probes: Mapping[str, Readout],
        triggers: Sequence[Trigger],
        on_token: Callable[[Seen], None] | None,
    ) -> None:
        for edit in edits:
            check_fits(lens, edit)
        self.lens, self.edits, self.triggers = lens, tuple(edits), tuple(triggers)
        if len({str(trigger) for trigger in triggers}) < len(triggers):
            raise ValueError("two triggers have one name, by which records tell them apart: give each a name=…")
        self._rows: Bool[Tensor, " n"] | Int64[Tensor, " n"] | None = None
        self.forwards = 0
        self.watched: list[Held] = []
        gates = [*(edit.gate for edit in edits), *(trigger.when for trigger in triggers)]
        probing = [gate for gate in dict.fromkeys(leaf for one in gates for leaf in leaves(one)) if isinstance(gate, ProbeGate)]
        whose = [*(f"the probe {name!r}" for name in probes), *("the gate" for _ in probing)]
        reading, columns = readings(lens, [*probes.values(), *probing], whose)
        self._buffers = Buffers(lens.inner)
        self._openings = Openings(probing, columns[len(probes) :], [place(lens.expand(gate.site)[0]) for gate in probing], self._buffers)
        self._amounts = Amounts(lens, self.edits, self._openings, self._buffers)
        self._acting = Acting(lens, self.triggers)
        self._watching = Watching(dict(zip(probes, columns, strict=False)), self._acting, self._openings, self._buffers, on_token)
        self._programs = Programs(lens, self.edits, reading, self._watching.probes.values(), self._openings, self._amounts, self._buffers)
        self.clock = Clock(
            lens,
            [*(span for edit in edits for span in edit.where), *spans_asked(gates)],
            counting=counting(gates),
            reorder=self._reorder,
        )
        self._firing = Firing()
        self._strengths = [edit.strengths for edit in edits]
        self._used: list[list[Any]] = [[] for _ in edits]  # the strengths of each that forwards ran under
        self._strengths_changed = True
        self._was_on = False
        self._refused: ValueError | None = None  # generate_batch runs in a thread of its own, where an error ends up in the log
        self._pick: Int64[Tensor, " b"] | None = None
        self._counting: Int64[Tensor, " b"] | None = None
        self._copies, self._asked = 1, 0
        self._shape: Shape | None = None

    @property
    def rows(self) -> Bool[Tensor, " n"] | Int64[Tensor, " n"] | None:
        return self._rows

    @rows.setter
    def rows(self, rows: Sequence[int] | Sequence[bool] | Tensor | None) -> None:
        given = None if rows is None else torch.as_tensor(rows).cpu()
        if given is not None and (given.ndim != 1 or given.is_floating_point() or given.is_complex()):
            raise ValueError(f"rows is True or False, or the number of an edit, for each row; not {rows!r}")
        self._rows, self._strengths_changed = given, True

    @property
    def strength(self) -> Any:
        """As it was set, a number or one per row: of the only edit, or a list of those of each."""
        told = [strength.tolist() for strength in self._strengths]
        return told[0] if len(told) == 1 else told

    def set_strength(self, strength: Strength, edit: int | None = None) -> None:
        """Change the strength from the next forward on, in place: one number, or one per row (in generate: per prompt).

        edit   its number, from 0; left out, all of them
        """
        given = checked_strength(strength)
        if not self.edits or (edit is not None and edit not in range(len(self.edits))):
            raise ValueError(f"there is no edit {0 if edit is None else edit}: they are numbered from 0, and there are {len(self.edits)}")
        for number in range(len(self.edits)) if edit is None else (edit,):
            self._strengths[number] = given
        self._strengths_changed = True

    @property
    def fired(self) -> Int64[Tensor, " b"]:
        """Tokens steered in each row of the batch that ran last; a token counts once, at however many sites it is steered."""
        return self._firing.fired

    @property
    def fired_total(self) -> int:
        """Tokens steered in all rows of all batches."""
        return self._firing.totals[0]

    @property
    def logits_processor(self) -> LogitsProcessor:
        """What writes the tokens of triggers that stop or remind: to be passed to a `model.generate` of your own."""
        return self._acting.processor

    @property
    def writes(self) -> bool:
        """Whether a trigger may write tokens."""
        return self._acting.writes

    @property
    def waits(self) -> bool:
        """Whether nothing is steered before a trigger sets it off."""
        return self._acting.waits

    def report(self) -> dict[str, Any]:
        """What was steered and how often it acted, JSON-able; `strengths` are those that forwards ran under, one after another."""
        total, rows, rows_fired = self._firing.totals
        now = zip(self.edits, self._strengths, self._used, strict=True)
        return {
            "edits": [{**edit.facts(), "strength": strength.tolist(), "strengths": used} for edit, strength, used in now],
            "probes": list(self._watching.probes),
            "triggers": [str(trigger) for trigger in self.triggers],
            **{"forwards": self.forwards, "rows": rows, "rows_fired": rows_fired, "fired": total},
        }

    def record(self) -> list[RowRecord]:
        """What happened in each row of the batch that ran last. Under beam search rows are those of the hypotheses as they ran."""
        return self._firing.by_row(len(self.edits), list(self._watching.probes.values()), len(self.triggers))

    def written(self) -> tuple[list[list[tuple[int, int]]], list[bool]]:
        """Of each row of the batch that ran last: ranges of output tokens that were reminders, and whether a trigger stopped it."""
        return self._acting.inserted(), self._acting.stopped.tolist()

    def watch(self, prompt_id: str, record: RowRecord) -> None:
        """Keep the readouts of a prompt whose row is finished."""
        if self._watching.probes or self.triggers:
            self.watched.append(self._watching.held(prompt_id, record))

    def expect(
        self,
        prompt_lengths: Int64[Tensor, " b"] | None,
        *,
        rows: Int64[Tensor, " b"] | None = None,
        whole: Sequence[Sequence[int]] | None = None,
        counting: Int64[Tensor, " b"] | None = None,
    ) -> None:
        """Announce the coming batch; None takes it back.

        prompt_lengths   where its prompts end
        rows             where its rows stand among the strengths and `rows` that were given one by one
        whole            as in Clock.expect
        counting         of each row the output token from which on records and triggers take no notice: a recording runs the last one too
        """
        self.clock.expect(prompt_lengths, whole)
        self._pick, self._counting = rows, counting

    def check(self, prompts: Sequence[Prompt]) -> None:
        """ValueError where these prompts cannot be generated for: other strengths or `rows` one by one, layers that need a picture."""
        self.check_rows(len(prompts))
        if self._programs.crossing and not all(prompt.images for prompt in prompts):
            raise ValueError(never_ran(self.lens, self._programs.crossing))

    def check_rows(self, n: int) -> None:
        """ValueError unless strengths and `rows`, where given one by one, are `n`, and rows name edits that are there."""
        self._asked = n
        for what, given in (*(("strengths", one) for one in self._strengths), ("rows", self.rows)):
            if given is not None and given.ndim and len(given) != n:
                raise ValueError(f"{len(given)} {what} for {n} rows; give one for each, or a single one for all")
        if self.rows is not None and self.rows.dtype != torch.bool and not bool(((self.rows >= 0) & (self.rows <= len(self.edits))).all()):
            raise ValueError(f"rows number the edits from 1 to {len(self.edits)}, 0 is none; got {self.rows.tolist()}")

    # installing

    def _install(self, undo: ExitStack) -> None:
        lens = self.lens
        if lens.steering is not None or taken(lens.inner):
            already = f", with {lens.steering}" if lens.steering is not None else ""
            raise RuntimeError(
                f"{lens.name} is being steered already{already}. Leave that with-block first, or put everything into one steer(): "
                "it takes several edits."
            )
        undo.callback(setattr, lens, "steering", None)
        lens.steering = self
        forget_graphs()
        undo.callback(forget_graphs)
        undo.callback(self._buffers.remove)
        self._programs.lay_out(lens.device)
        self._amounts.lay_out(lens.device)
        self._openings.lay_out(lens.device)
        undo.callback(self.clock.let_go)
        undo.callback(self.clock.attach().remove)
        disable: Any = torch.compiler.disable
        before, after = (disable(run, reason=WHY_NOT_COMPILED) for run in (self._before, self._after))
        undo.callback(lens.inner.register_forward_pre_hook(before).remove)
        undo.callback(lens.inner.register_forward_hook(after).remove)
        for handle in self._programs.attach():
            undo.callback(handle.remove)

    # running

    def _before(self, *_: object) -> None:
        tick = self.clock.now
        shape = (tick.ids.shape[0], tick.ids.shape[1])
        self.forwards += 1
        self._buffers.make_room(*shape)
        if tick.packed:
            self._check_packed()
        if tick.start and not tick.regrown:
            self._begin(shape[0])
        if self._strengths_changed:
            self._write_strengths(shape[0])
        if self._acting.writes and not (tick.start and not tick.regrown) and not self._acting.processor.calls:
            raise ValueError(
                "a trigger is to write tokens, and the generation that runs does not let it: pass "
                "logits_processor=[steering.logits_processor] to model.generate, or use generate()."
            )
        self._openings.begin(self.clock, None if tick.start else self._shape)
        self._shape, self._programs.running = shape, True
        if self.edits:
            self._amounts.begin(self.clock, shape, self._acting.armed(tick.output) if self._acting.waits else None)
            if shape[1] > 1 and self._openings.gates:
                self._check_order()

    def _begin(self, rows: int) -> None:
        if self._programs.crossing and not bool(self._image_tokens().all()):
            raise ValueError(never_ran(self.lens, self._programs.crossing))
        if self._pick is None:
            self._spread(rows)
        self._firing.begin(rows)
        self._acting.begin(rows)
        self._strengths_changed = True

    def _image_tokens(self) -> Int64[Tensor, " b"]:
        """How many tokens of each row stand for pictures."""
        ids, token = self.clock.now.ids, self.lens.frame.image_token_id
        return ids.new_zeros(len(ids)) if token is None else (ids == token).sum(1)

    def _spread(self, rows: int) -> None:
        """Where several sequences are written for each prompt, what was given per prompt holds for each of them."""
        counts = {len(given) for given in (*self._strengths, self.rows) if given is not None and given.ndim}
        self._copies = 1
        if len(counts) == 1 and rows % (count := counts.pop() or rows) == 0:
            copies = rows // count
            if copies > 1 and _alike(self.clock.now.ids, self.clock.pictures, self._image_tokens(), copies):
                self._copies = copies
        self.check_rows(rows // self._copies)

    def _write_strengths(self, rows: int) -> None:
        self.check_rows(self._asked)
        strengths = torch.stack([self._per_row(one, rows) for one in self._strengths], 1) if self.edits else torch.zeros(rows, 0)
        if self.rows is not None:
            chosen = self._per_row(self.rows, rows)[:, None]
            strengths = strengths * (chosen if chosen.dtype == torch.bool else chosen == torch.arange(1, len(self.edits) + 1))
        self._amounts.write_strengths(strengths)
        for used, strength in zip(self._used, self._strengths, strict=True):
            if not used or used[-1] != strength.tolist():
                used.append(strength.tolist())
        self._was_on, self._strengths_changed = self._was_on or bool(strengths.any()), False

    def _per_row(self, given: Tensor, rows: int) -> Tensor:
        if given.ndim == 0:
            return given.expand(rows)
        return given.repeat_interleave(self._copies) if self._pick is None else given[self._pick]

    def _after(self, _: object, args: object, output: Any) -> None:
        tick, shape, self._programs.running = self.clock.now, self._shape, False
        if shape is None or tick.thread != threading.get_ident():
            raise RuntimeError(
                f"another thread ran {self.lens.name} during this forward, and steering follows one at a time. "
                "Let one thread run the model, or hold a lock while it generates."
            )
        self.clock.keep(output.get("past_key_values") if isinstance(output, Mapping) else None)
        counts = None if self._counting is None else tick.output < self._counting[:, None]
        if (acted := self._amounts.acted(shape)) is not None:
            self._firing.add(tick, acted if counts is None else acted & counts[..., None])
        if self._watching.probes or self.triggers:
            self._watching.look(self.clock, shape, counts, self._firing, None if self._pick is None else self._pick.tolist())

    def _reorder(self, rows: Int64[Tensor, " b"]) -> None:
        if self._acting.writes:
            raise ValueError("a trigger that writes tokens cannot follow beam search, where rows change places. Set num_beams=1.")
        if self._shape is not None:
            self._openings.reorder(rows, self._shape)
        self._acting.reorder(rows)

    # what cannot be done

    def _check_order(self) -> None:
        """ValueError where a gate would have to decide about tokens at a site that the forward has passed when it reads."""
        for where in self._amounts.wheres:
            first = min(place for places in where.places for place in places)
            for number in where.probes:
                if first >= self._openings.places[number]:
                    continue
                mask = self._amounts.candidates(where, self.clock)
                if mask is not None and bool((mask & self._openings.undecided(number, self.clock)).any()):
                    site = next(program.site for program in self._programs.changing if place(program.site) == first)
                    raise ValueError(
                        f"the gate reads at {self._openings.gates[number].site}, after {site} is steered, and this forward holds both the "
                        f"token it reads and later tokens to steer, which cannot wait for it. Let the gate read at {site} or before."
                    )

    def _check_packed(self) -> None:
        everywhere = all(where.gate == Always() and "all" in map(str, where.spans) for where in self._amounts.wheres)
        by_row = any(strength.ndim for strength in self._strengths) or self.rows is not None
        if not everywhere or by_row or self._watching.probes or self.triggers:
            self._refused = ValueError(
                "generate_batch packs tokens of many requests into one row and does not say whose they are, so only what acts on every "
                'token can be steered: spans="all", gate always, one strength, no probes, no triggers. For anything else use '
                "model.generate or generate()."
            )
            raise self._refused

    def _check_fired(self) -> None:
        """On leaving. ValueError where steering was on, tokens went by, and nothing was steered; and what was refused in another thread."""
        self.clock.check()
        if self._refused is not None:
            raise self._refused
        if self.forwards and (silent := self._programs.silent(steered=self._was_on)):
            raise ValueError(
                f"nothing was {silent[0]}: {self.forwards} forwards began, but the hook there never ran. A layer that is "
                "replaced, exported or run from a captured graph does not see hooks: let the model's own modules run."
            )
        if not self._was_on:
            if not self.forwards and any(bool(strength.any()) for strength in self._strengths):
                log.warning(
                    "steering of %s ends and no forward of the model was seen. If something was generated meanwhile, it was not steered: "
                    "run lens.model itself, not a copy of it, an exported graph or another process.",
                    self.lens.name,
                )
            return
        total, rows, _ = self._firing.totals
        if total:
            return
        asked = "; ".join(dict.fromkeys(f"the spans {', '.join(edit.where)} under the gate {edit.gate}" for edit in self.edits))
        writing = self.clock.writing
        text = (
            f"no hidden state was steered in {rows} rows: {asked} held no token. "
            f'Dialect "{self.lens.dialect.name}": of the {len(writing.marked)} outputs of the last batch {int(writing.marked.sum())} wrote '
            f"a marker, {int(writing.closed.sum())} closed a thought."
        )
        if self._openings.gates or self._acting.waits:
            log.warning("%s The gate of a probe or a trigger may have stayed closed: lower the threshold if it should have opened.", text)
            return
        raise ValueError(
            f"{text} Outputs may be too short for these spans, or the gate closed wherever they are: change either, generate longer, or "
            'load the model with the dialect it writes. "last_prompt" is always there.'
        )

    def __str__(self) -> str:
        now = [replace(edit, strength=strength) for edit, strength in zip(self.edits, self._strengths, strict=True)]
        return "; ".join(map(str, now)) or "monitored"


def _alike(ids: Int64[Tensor, "b p"], pictures: Tensor | None, image_tokens: Int64[Tensor, " b"], copies: int) -> bool:
    """Whether always so many rows are one prompt, with the same pictures; False where it does not show whose pictures are whose."""
    if not torch.equal(ids, ids[::copies].repeat_interleave(copies, 0)):
        return False
    if pictures is None:
        return True
    parts, total = image_tokens * len(pictures), image_tokens.sum()
    if bool((parts % total).any()):
        return False
    of: Sequence[Tensor] = torch.split(pictures, (parts // total).tolist())
    return all(torch.equal(of[row], of[row - row % copies]) for row in range(len(ids)))


def forget_graphs() -> None:
    """Drop every graph that torch.compile has made in this process: one made without our hooks would go on without them, and one made with
    them would go on with them."""
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()
