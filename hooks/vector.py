"""Steering vectors: one direction per site, with where it was read, how long residuals are there, and where it came from.

The unit of strength is natural: at every site the vector is given the mean length of the residuals there, and several sites share it,

    u_site = v_site / |v_site| · scale_site / √(number of sites)

so strength 0.5 moves a hidden state by half of its mean length, whatever the model, layer or number of sites.
Shapes: values [d].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from .artifact import load_artifact, save_artifact
from .sites import parse_site
from .spans import parse_span


@dataclass(frozen=True, eq=False)
class Vector:
    """A steering vector.

    values   site such as "resid_post.4" -> [d], float32 or wider
    span     where it was read, and by default where it is added
    pool     how the tokens of the span were put together
    source   what it is, in a word or two: "safe-reasoning"
    scale    site -> mean length of residuals at that site and span, in the model to be steered
    header   anything else worth knowing, JSON-able: models and their fingerprints, number of prompts, seed
    """

    values: Mapping[str, Float[Tensor, " d"]]
    span: str
    pool: str = "mean"
    source: str = ""
    scale: Mapping[str, float] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"the vector {self.source!r} has no site. Give it values={{'resid_post.4': tensor}}.")
        parse_span(self.span)
        for site, value in self.values.items():
            name, layer = parse_site(site)
            if layer is None:
                raise ValueError(
                    f"the vector {self.source!r} has a value for every {name} together; give each layer its own, as in {name}.4"
                )
            if value.ndim != 1 or value.numel() != self.width:
                raise ValueError(
                    f"the vector {self.source!r} is {list(value.shape)} at {site}, expected one direction [{self.width}] per site"
                )
            if not bool(value.isfinite().all()) or not bool(value.any()):
                what = "zero" if bool(value.isfinite().all()) else "not finite"
                raise ValueError(f"the vector {self.source!r} is {what} at {site}. Leave the site out, with .at(…).")
        if strange := [site for site, scale in self.scale.items() if not (math.isfinite(scale) and scale > 0)]:
            raise ValueError(
                f"the scale of the vector {self.source!r} at {strange[0]} is {self.scale[strange[0]]}; it is a mean length, above 0"
            )

    @property
    def width(self) -> int:
        return next(iter(self.values.values())).numel()

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.values)

    def at(self, *sites: str) -> Vector:
        """The vector at these sites only; a name without layer means all of its layers that are there."""
        chosen: dict[str, Tensor] = {}
        for asked in sites:
            name, layer = parse_site(asked)
            found = {site: value for site, value in self.values.items() if site == asked or (layer is None and parse_site(site)[0] == name)}
            if not found:
                raise ValueError(f"the vector {self.source!r} has no value at {asked!r}; it has {', '.join(self.values)}")
            chosen |= found
        return replace(self, values=chosen, scale={site: scale for site, scale in self.scale.items() if site in chosen})

    def unit(self) -> Vector:
        """The same directions at length 1."""
        return replace(self, values={site: value / value.norm() for site, value in self.values.items()})

    def natural(self) -> Vector:
        """The same directions at the length strength 1 stands for: u_site above."""
        if missing := [site for site in self.values if site not in self.scale]:
            raise ValueError(
                f"the vector {self.source!r} knows no mean residual length at {missing[0]}. Give it scale={{site: length}}, "
                'or steer with unit="raw".'
            )
        share = math.sqrt(len(self.values))
        return replace(self, values={site: value / value.norm() * (self.scale[site] / share) for site, value in self.values.items()})

    def save(self, path: str | Path) -> Path:
        """Write as an artifact, which is never overwritten."""
        facts = {"span": self.span, "pool": self.pool, "source": self.source, "scale": dict(self.scale), "sites": list(self.values)}
        return save_artifact(path, self.values, {"kind": "vector", "vector": facts, "header": dict(self.header)})

    @classmethod
    def load(cls, path: str | Path) -> Vector:
        """Read what save() wrote."""
        values, header = load_artifact(path)
        if header.get("kind") != "vector":
            raise ValueError(f"{path} holds a {header.get('kind')!r}, not a steering vector. Pass a file written by Vector.save().")
        facts = header["vector"]
        ordered = {site: values[site] for site in facts.pop("sites")}
        return cls(ordered, header=header["header"], **facts)
