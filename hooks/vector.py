"""Steering vectors: a direction per site, as long as the difference that was measured along it, with where it was read and came from.

    v_site = mean h(class steered to) − mean h(class steered from)

so strength 1 of `add` moves a hidden state by the measured difference, whatever the model and layer. Several sites share it, each getting
v_site / √(number of sites): on the shipped trio three layers then move the last of them by 1.04, all six by .94 of the measured difference.

What other operators need is kept beside it: the two class means (`affine`, `rotate`), several orthonormal directions instead of one
(`subspace`, `transport`), the map that carries one class onto the other between them (`transport`).

A vector belongs to the model it was made for: steering another with it is refused (provenance.py).
Shapes: a value [d], or [k, d] for k directions; means [2, d], steered from and steered to; transport [k, k].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .artifact import load_artifact, save_artifact
from .sites import Site, parse_site
from .spans import parse_span

_EXTRAS = ("means", "transport")
RECOMMENDED = ("strength", "operator", "unit", "spans", "gate", "chosen_on")


@dataclass(frozen=True, eq=False)
class Vector:
    """A steering vector.

    values      site such as "resid_post.4" -> [d], or [k, d] with orthonormal rows; float32 or wider
    span        where it was read, and by default where it acts
    pool        how the tokens of the span were put together
    source      what it is, in a word or two: "safe-reasoning"
    scale       site -> mean length of residuals at that site and span, in the model to be steered
    means       site -> [2, d], the class means: steered from, steered to
    transport   site -> [k, k]
    header      anything else worth knowing, JSON-able: made_for and made_from (provenance.py), data, recommended
    """

    values: Mapping[str, Float[Tensor, "*k d"]]
    span: str
    pool: str = "mean"
    source: str = ""
    scale: Mapping[str, float] = field(default_factory=dict)
    means: Mapping[str, Float[Tensor, "2 d"]] = field(default_factory=dict)
    transport: Mapping[str, Float[Tensor, "k k"]] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"the vector {self.source!r} has no site. Give it values={{'resid_post.4': tensor}}.")
        parse_span(self.span)
        for site, value in self.values.items():
            self._check(site, value)
        for name in _EXTRAS:
            for site, extra in getattr(self, name).items():
                if site not in self.values:
                    raise ValueError(f"the vector {self.source!r} has {name} at {site}, and no value there. Leave them out, with .at(…).")
                rows = 2 if name == "means" else len(self.values[site])
                wanted = (rows, self.width if name == "means" else rows)
                if extra.shape != wanted or not bool(extra.isfinite().all()):
                    raise ValueError(
                        f"the {name} of the vector {self.source!r} at {site} are finite and {list(wanted)}, not {list(extra.shape)}"
                    )
            alike = {site: extra.to(self.values[site].dtype) for site, extra in getattr(self, name).items()}
            object.__setattr__(self, name, alike)
        if strange := [site for site, scale in self.scale.items() if not (math.isfinite(scale) and scale > 0)]:
            raise ValueError(
                f"the scale of the vector {self.source!r} at {strange[0]} is {self.scale[strange[0]]}; it is a mean length, above 0"
            )

    def _check(self, site: str, value: Tensor) -> None:
        name, layer = parse_site(site)
        if layer is None:
            raise ValueError(f"the vector {self.source!r} has a value for every {name} together; give each layer its own, as in {name}.4")
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise ValueError(f"the vector {self.source!r} is no tensor of numbers with a point at {site}: {type(value).__name__}")
        if value.ndim not in (1, 2) or value.shape[-1] != self.width:
            raise ValueError(
                f"the vector {self.source!r} is {list(value.shape)} at {site}, expected one direction [{self.width}] per site, or "
                f"several [k, {self.width}]"
            )
        if not bool(value.isfinite().all()) or not bool(value.any()):
            what = "zero" if bool(value.isfinite().all()) else "not finite"
            raise ValueError(f"the vector {self.source!r} is {what} at {site}. Leave the site out, with .at(…).")
        if value.ndim == 2 and not torch.allclose(value.double() @ value.double().T, torch.eye(len(value), dtype=torch.float64), atol=1e-4):
            raise ValueError(
                f"the {len(value)} directions of {self.source!r} at {site} are not orthonormal. Pass torch.linalg.qr(rows.T).Q.T"
            )

    @property
    def width(self) -> int:
        return next(iter(self.values.values())).shape[-1]

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.values)

    @property
    def recommended(self) -> Mapping[str, Any]:
        """How to steer with it and where that was chosen; empty where nobody said."""
        told: Mapping[str, Any] = self.header.get("recommended", {})
        return told

    def direction(self, site: str) -> Float[Tensor, " d"]:
        """The one direction at a site, at its measured length. ValueError where there are several."""
        value = self.values[site]
        if value.ndim == 2:
            raise ValueError(
                f"{self.source!r} has {len(value)} directions at {site}, and this operator takes one. Use subspace or transport."
            )
        return value

    def basis(self, site: str) -> Float[Tensor, "k d"]:
        """The directions at a site, orthonormal; one for a plain vector."""
        value = self.values[site]
        return value if value.ndim == 2 else (value / value.norm())[None]

    def means_at(self, site: str) -> Float[Tensor, "2 d"]:
        """The class means at a site."""
        if site not in self.means:
            raise ValueError(
                f"the vector {self.source!r} does not know the class means at {site}, which this operator needs. Make it with "
                "steering_vector(), or pass means={site: tensor [2, d]}, steered from and steered to."
            )
        return self.means[site]

    def transport_at(self, site: str) -> Float[Tensor, "k k"]:
        """How one class is carried onto the other, between the directions at a site."""
        if site not in self.transport:
            raise ValueError(
                f"the vector {self.source!r} has no transport at {site}. Make it with steering_subspace(), or thoughtlens "
                "vector --directions 2, which measure it."
            )
        return self.transport[site]

    def at(self, *sites: str) -> Vector:
        """The vector at these sites only; a name without layer means all of its layers that are there."""
        chosen: dict[str, None] = {}
        for asked in sites:
            name, layer = parse_site(asked)
            found = [site for site in self.values if site == asked or (layer is None and parse_site(site)[0] == name)]
            if not found:
                raise ValueError(f"the vector {self.source!r} has no value at {asked!r}; it has {', '.join(self.values)}")
            chosen |= dict.fromkeys(found)
        fields: dict[str, Any] = {name: getattr(self, name) for name in ("values", "scale", *_EXTRAS)}
        kept: dict[str, Any] = {name: {site: each[site] for site in chosen if site in each} for name, each in fields.items()}
        return replace(self, **kept)

    def elsewhere(self, sites: Iterable[str | Site]) -> Vector:
        """The direction of the vector's only site, acting at others. Class means and transport stay behind: they are those of their site.

        Ablated at all of `lens.outputs`, nothing of it is written into the residual stream any more (Arditi et al. 2024, weight
        orthogonalisation); what the embeddings hold of it stays.
        """
        if len(self.values) != 1:
            raise ValueError(f"the vector {self.source!r} has {len(self.values)} sites, and one direction can act elsewhere. Choose one.")
        ((site, value),) = self.values.items()
        names = dict.fromkeys(map(str, sites), value)
        return replace(self, values=names, scale={}, means={}, transport={}, source=f"{self.source} of {site}")

    def recommend(self, *, strength: float, chosen_on: str, **how: Any) -> Vector:
        """The same vector, saying how to steer with it: `strength` and, if not the defaults, operator, unit, spans, gate.

        chosen_on   on which prompts that was chosen, such as "organism dev, 80 prompts"
        """
        if strange := [name for name in how if name not in RECOMMENDED]:
            raise ValueError(f"a recommendation says {', '.join(RECOMMENDED)}, not {strange[0]!r}")
        told = {"strength": float(strength), "chosen_on": chosen_on, **how}
        return replace(self, header={**self.header, "recommended": told})

    def save(self, path: str | Path) -> Path:
        """Write as an artifact, which is never overwritten."""
        facts = {"span": self.span, "pool": self.pool, "source": self.source, "scale": dict(self.scale), "sites": list(self.values)}
        extras = {f"{site}|{name}": value for name in _EXTRAS for site, value in getattr(self, name).items()}
        tensors = {name: value.clone() for name, value in {**self.values, **extras}.items()}  # one tensor may stand at several sites
        return save_artifact(path, tensors, {"kind": "vector", "vector": facts, "header": dict(self.header)})

    @classmethod
    def load(cls, path: str | Path) -> Vector:
        """Read what save() wrote. Whether it belongs to a model is asked when steering begins."""
        tensors, header = load_artifact(path)
        if header.get("kind") != "vector":
            raise ValueError(f"{path} holds a {header.get('kind')!r}, not a steering vector. Pass a file written by Vector.save().")
        facts = dict(header["vector"])
        sites = facts.pop("sites")
        extras: dict[str, Any] = {
            name: {site: tensors[f"{site}|{name}"] for site in sites if f"{site}|{name}" in tensors} for name in _EXTRAS
        }
        return cls({site: tensors[site] for site in sites}, header=header["header"], **facts, **extras)
