"""One forward of a batch, read at sites and pooled where it was computed.

Hooks are installed for the length of a with-block and removed after it, whatever happens; hooks of others stay. They only look. The forward
ends once the last wanted site has been read: no output head, no layers behind it.

    mean, max      pooled in float32, gathered and reduced in one step; what is copied is one vector per span
    first, last    one token per span; every: all of them

On the CPU in float32 a vector is written straight to its place. Elsewhere the tokens of several sites are gathered where they are, pooled
together and sent in one copy; from a CUDA device through pinned memory on a stream of its own, so that the next forward need not wait.
The last of them are sent within the forward: what does not fit into memory is told there, and not once it is waited for.

Shapes: b batch, n padded length, D width of a site (heads side by side), v vectors of a batch, m tokens in all their spans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .attach import Take, site_width, watch
from .encode import Batch
from .model import LensModel
from .select import Pool
from .sites import Site

HELD_BYTES = 256 * 2**20  # gathered on a device before it is pooled and sent
_SUM, _MAX = 0, 2  # modes of torch.embedding_bag, which gathers and reduces in one step
_MODES = {"mean": _SUM, "max": _MAX}  # a mean is a sum until it has landed: one division for all sites


@contextmanager
def reading(lens: LensModel, sites: Sequence[Site], take: Take) -> Iterator[None]:
    """Within the context, take(site, hidden) is called at every site in every forward. `hidden` is the model's own: do not change it."""
    with ExitStack() as undo:
        for site in sites:
            undo.callback(watch(lens, site, take).remove)
        yield


class Landing:
    """Pools the hidden states of one forward into `out`.

    sites    what will be taken, in the order of `out`
    at       [m] indices into the b·n tokens, the runs one after the other
    counts   [v] tokens of each run, each at least one; for pool "every" the runs do not matter and v = m
    out      [v, site, D] float32 on the CPU; filled once wait() has returned
    """

    def __init__(
        self, sites: Sequence[Site], at: Int64[Tensor, " m"], counts: Int64[Tensor, " v"], pool: Pool, out: Float[Tensor, "v site D"]
    ) -> None:
        starts = counts.cumsum(0) - counts
        one_each = {"first": starts, "last": starts + counts - 1}
        self.out = out
        self._place = {site: i for i, site in enumerate(sites)}
        self._left = set(range(len(sites)))
        self._at = at[one_each[pool]] if pool in one_each else at
        self._starts, self._counts, self._mode = starts, counts, _MODES.get(pool)
        self._here: dict[int, Float[Tensor, "v D"]] = {}
        self._away: dict[torch.device, _Away] = {}

    @property
    def seen(self) -> set[Site]:
        """The sites taken so far."""
        return {site for site, place in self._place.items() if place not in self._left}

    @property
    def whole(self) -> bool:
        """Whether every site was taken."""
        return not self._left

    def take(self, site: Site, hidden: Float[Tensor, "b n *d"]) -> None:
        """Pool the hidden state of a site. What is done here is paid for in every layer."""
        place, tokens = self._place[site], hidden.flatten(0, 1)
        self._left.discard(place)
        if tokens.ndim > 2:
            tokens = tokens.flatten(1)
        if not tokens.is_cpu or tokens.dtype is not torch.float32:
            if tokens.device not in self._away:
                self._away[tokens.device] = _Away(tokens.device, self._at, self._starts, self._mode)
            self._away[tokens.device].take(place, tokens)
        elif self._mode is None:
            torch.index_select(tokens, 0, self._at, out=self.out[:, place])
        else:
            self._here[place] = torch.embedding_bag(tokens, self._at, self._starts, False, self._mode)[0]
        if self.whole:
            for away in self._away.values():
                away.send()

    def wait(self) -> Float[Tensor, "v site D"]:
        """`out`, once everything has arrived; every site was taken before. Waiting again changes nothing."""
        for away in self._away.values():
            away.land(self.out)
        if self._here:
            self.out[:, list(self._here)] = torch.stack(list(self._here.values()), 1)
        if self._mode == _SUM:
            self.out /= self._counts[:, None, None]
        self._here, self._mode = {}, None
        return self.out


class _Away:
    """What is read on a device other than the CPU, or in another precision than float32.

    Tokens of a few sites are held there, pooled together, sent, and put in their places once they are wanted.
    """

    def __init__(self, device: torch.device, at: Int64[Tensor, " m"], starts: Int64[Tensor, " v"], mode: int | None) -> None:
        self._at, self._starts, self._mode = at.to(device, non_blocking=True), starts.to(device, non_blocking=True), mode
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._held: list[tuple[int, Float[Tensor, "m D"]]] = []
        self._sent: list[tuple[list[int], Tensor, torch.Event | None]] = []

    def take(self, place: int, tokens: Float[Tensor, "bn D"]) -> None:
        chosen = tokens.index_select(0, self._at)
        self._held.append((place, chosen))
        if len(self._held) * chosen.nbytes >= HELD_BYTES:
            self.send()

    def land(self, out: Float[Tensor, "v site D"]) -> None:
        for places, vectors, arrived in self._sent:
            if arrived is not None:
                arrived.synchronize()
            for place, one in zip(places, vectors, strict=True):
                out[:, place] = one.to(out.device)
        self._sent.clear()

    def send(self) -> None:
        """Pool what is held and start its copy."""
        if not self._held:
            return
        places, held = [place for place, _ in self._held], torch.stack([chosen for _, chosen in self._held])
        self._held.clear()
        vectors = held if self._mode is None else self._pooled(held, self._mode)
        if self._stream is None:
            self._sent.append((places, vectors, None))
            return
        pinned = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(vectors.device))
        with torch.cuda.stream(self._stream):
            pinned.copy_(vectors, non_blocking=True)
        vectors.record_stream(self._stream)  # else its memory would be given to the next forward while the copy still reads it
        self._sent.append((places, pinned, self._stream.record_event()))

    def _pooled(self, held: Float[Tensor, "site m D"], mode: int) -> Float[Tensor, "site v D"]:
        """The runs of every site at once: the tokens of the second follow those of the first."""
        sites, m = held.shape[:2]
        starts = (torch.arange(sites, device=held.device)[:, None] * m + self._starts).flatten()
        every = torch.arange(sites * m, device=held.device)
        return torch.embedding_bag(held.flatten(0, 1).float(), every, starts, False, mode)[0].reshape(sites, -1, held.shape[2])


class _Enough(Exception):
    """Every wanted site has been read: the forward may end here."""


class Reader:
    """Runs forwards of a model as far as the last of some sites, which it reads; see reader()."""

    def __init__(self, lens: LensModel, sites: Sequence[Site]) -> None:
        self.lens, self.sites = lens, sites
        self._landing: Landing | None = None

    @torch.no_grad()
    def start(
        self, batch: Batch, at: Int64[Tensor, " m"], counts: Int64[Tensor, " v"], pool: Pool, out: Float[Tensor, "v site D"]
    ) -> Landing:
        """One forward of an encoded batch. The vectors are in `out` once the landing was waited for.

        `at` counts tokens of the padded batch, row by row. ValueError when a site never ran.
        """
        landing = self._landing = Landing(self.sites, at, counts, pool, out)
        try:
            self.lens.inner(**batch.inputs, use_cache=False)
        except _Enough:
            return landing
        finally:
            self._landing = None
        raise ValueError(never_ran(self.lens, [site for site in self.sites if site not in landing.seen]))

    def take(self, site: Site, hidden: Tensor) -> None:
        if self._landing is not None:
            self._landing.take(site, hidden)
            if self._landing.whole:
                raise _Enough


@contextmanager
def reader(lens: LensModel, sites: Sequence[Site]) -> Iterator[Reader]:
    """Hooks at the sites of a model for the length of the block, in which start() runs one batch after another."""
    found = Reader(lens, sites)
    with reading(lens, sites, found.take):
        yield found


def read(
    lens: LensModel, batch: Batch, sites: Sequence[Site], at: Int64[Tensor, " m"], counts: Int64[Tensor, " v"], pool: Pool
) -> Float[Tensor, "v site D"]:
    """The pooled vectors of one forward of an encoded batch, on the CPU, float32; see Reader.start."""
    out = torch.empty(len(at) if pool == "every" else len(counts), len(sites), site_width(lens, sites[0]))
    with reader(lens, sites) as one:
        return one.start(batch, at, counts, pool, out).wait()


def never_ran(lens: LensModel, sites: Sequence[Site]) -> str:
    """What to say of sites that a forward did not come by."""
    crossing = [i for i, block in enumerate(lens.blocks) if block.site == "cross_attn_out"]
    if all(site.layer in crossing for site in sites):
        others = ", ".join(str(i) for i in range(lens.n_layers) if i not in crossing)
        return (
            f"site {str(sites[0])!r} never ran: {lens.name} skips its cross-attention layers ({', '.join(map(str, crossing))}) where no "
            f"prompt has a picture. Choose sites of the layers {others}, or leave out prompts without pictures."
        )
    return (
        f"site {str(sites[0])!r} never ran in a forward of {lens.name} ({len(sites)} of the sites asked). A model compiled before its "
        "hooks are set does not see them: read first, or call torch._dynamo.reset()."
    )
