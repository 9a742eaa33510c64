"""The tabs of the app, in their order: each a file with what it shows of one run, and the choices that are its own."""

from __future__ import annotations

from . import collapse, geometry, layers, provenance, steering, thoughts
from .tab import Tab

TABS: dict[str, Tab] = {
    "collapse": Tab("Collapse", collapse.content, filters=collapse.FILTERS),
    "layers": Tab("Layers", layers.content, layers.controls, filters=layers.FILTERS),
    "thoughts": Tab("Thoughts", thoughts.content),
    "geometry": Tab("Geometry", geometry.content, geometry.controls),
    "steering": Tab("Steering", steering.content, filters=()),
    "provenance": Tab("Provenance", provenance.content, filters=()),
}
