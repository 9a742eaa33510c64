"""Select: sites × spans, pooled. The same value says what is read and where steering acts.

As text, for command lines and run folders, with blanks anywhere between the parts:

    sites @ spans | pool          resid_post,mlp_out.3 @ last_prompt,thought@0.5 | mean
    sites @ spans                 the pool left out is mean

The first @ parts sites from spans, so that a span may have one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from .sites import Site, parse_site
from .spans import Span, parse_span

Pool = Literal["mean", "max", "first", "last", "every"]
POOLS: tuple[Pool, ...] = get_args(Pool)


@dataclass(frozen=True, init=False)
class Select:
    """Which hidden states: sites × spans, pooled.

    sites   names such as "resid_post.7"; a name without a layer means every layer
    spans   "last_prompt", "thought", "thought[:16]", "thought@0.5", "step_end[0]", …
    pool    mean | max | first | last | every, over the tokens of a span
    """

    sites: tuple[str, ...]
    spans: tuple[str, ...]
    pool: Pool

    def __init__(self, sites: str | Site | Sequence[str | Site], spans: str | Span | Sequence[str | Span], pool: Pool = "mean") -> None:
        sites = [sites] if isinstance(sites, str | Site) else list(sites)
        spans = [spans] if isinstance(spans, str | Span) else list(spans)
        if not sites or not spans:
            raise ValueError(
                f"a selection needs at least one site and one span, got sites={sites} spans={spans}. "
                'Try Select("resid_post", "last_prompt").'
            )
        if pool not in POOLS:
            raise ValueError(f"unknown pool {pool!r}; known are {', '.join(POOLS)}")
        for site in sites:
            parse_site(site)
        object.__setattr__(self, "sites", tuple(dict.fromkeys(str(site) for site in sites)))
        object.__setattr__(self, "spans", tuple(dict.fromkeys(str(parse_span(span)) for span in spans)))
        object.__setattr__(self, "pool", pool)

    def __str__(self) -> str:
        return f"{','.join(self.sites)} @ {','.join(self.spans)} | {self.pool}"

    @classmethod
    def parse(cls, text: str) -> Select:
        """The selection that str() writes. ValueError names what is wrong."""
        sites, at, rest = text.partition("@")
        spans, bar, pool = rest.partition("|")
        if not at or (bar and not pool.strip()):
            raise ValueError(
                f'a selection is written "sites @ spans | pool", for example "resid_post @ last_prompt,thought@0.5 | mean"; got {text!r}'
            )
        return cls(listed(sites), listed(spans), cast(Pool, pool.strip()) if bar else "mean")

    def to_dict(self) -> dict[str, Any]:
        return {"sites": list(self.sites), "spans": list(self.spans), "pool": self.pool}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Select:
        if missing := {"sites", "spans", "pool"} - row.keys():
            raise ValueError(f"a selection has the fields sites, spans, pool; {sorted(missing)[0]!r} is missing in {dict(row)}")
        return cls(row["sites"], row["spans"], row["pool"])


def listed(text: str) -> list[str]:
    """What stands between the commas of a text, without blanks around it; nothing of a blank text."""
    return [part.strip() for part in text.split(",")] if text.strip() else []
