"""One harm taxonomy for all benchmarks: the hazards of MLCommons AILuminate 1.1 (Ghosh et al. 2025, arXiv 2503.05731).

Every loader maps the categories its benchmark publishes to these codes; a category that fits none (spam, lobbying, over-refusal) has "".
"""

from __future__ import annotations

HAZARDS = {
    "vcr": "violent crimes",
    "ncr": "nonviolent crimes",
    "src": "sex-related crimes",
    "cse": "child sexual exploitation",
    "iwp": "indiscriminate weapons",
    "ssh": "suicide and self-harm",
    "hte": "hate",
    "spc": "specialized advice",
    "prv": "privacy",
    "ipv": "intellectual property",
    "dfm": "defamation",
    "sxc": "sexual content",
}
