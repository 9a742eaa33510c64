"""Select: sites × spans, pooled. The same value says what is read and where steering acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

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

    def to_dict(self) -> dict[str, Any]:
        return {"sites": list(self.sites), "spans": list(self.spans), "pool": self.pool}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Select:
        if missing := {"sites", "spans", "pool"} - row.keys():
            raise ValueError(f"a selection has the fields sites, spans, pool; {sorted(missing)[0]!r} is missing in {dict(row)}")
        return cls(row["sites"], row["spans"], row["pool"])
