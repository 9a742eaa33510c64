"""The look of the reader: a colour for every level on both papers, and the styles of its classes.

A level is a share of Okabe and Ito's blue or vermilion on the paper, strongest so that the text keeps a contrast of 4.5. The dark colours
hold where the page says so (`data-theme`, as the report and the app do; the attributes of Jupyter and VS Code), else as the system asks.
"""

from __future__ import annotations

from . import theme

LEVELS = 5
STRONGEST: dict[theme.Mode, float] = {"light": 0.62, "dark": 0.66}
INKS = ("paper", "text", "muted", "grid", "line")


def mixed(color: str, paper: str, share: float) -> str:
    """So much of a colour on so much paper."""
    both = [[int(one[at : at + 2], 16) for at in (1, 3, 5)] for one in (color, paper)]
    return "#" + "".join(f"{round(share * ink + (1 - share) * ground):02x}" for ink, ground in zip(*both, strict=True))


def shade(level: int, mode: theme.Mode) -> str:
    """The colour behind a token of this level."""
    side = theme.MARKS["harmful" if level > 0 else "benign"].color
    return mixed(side, theme.INK[mode].paper, STRONGEST[mode] * (abs(level) / LEVELS) ** 0.8)


def _variables(mode: theme.Mode) -> str:
    ink = theme.INK[mode]
    levels = {f"level{level}": shade(level, mode) for level in range(-LEVELS, LEVELS + 1)}
    return " ".join(f"--tl-{name}: {color};" for name, color in {**levels, **{name: getattr(ink, name) for name in INKS}}.items())


_DARK = _variables("dark")
STYLE = f"""
.tl-reader, .tl-columns {{ {_variables("light")} }}
@media (prefers-color-scheme: dark) {{
  :root:not([data-theme=light]) body:not([data-jp-theme-light=true], .vscode-light) :is(.tl-reader, .tl-columns) {{ {_DARK} }}
}}
:root[data-theme=dark] :is(.tl-reader, .tl-columns) {{ {_DARK} }}
body:is([data-jp-theme-light=false], .vscode-dark) :is(.tl-reader, .tl-columns) {{ {_DARK} }}
.tl-reader {{ background: var(--tl-paper); color: var(--tl-text); font: 15px/2.05 {theme.FONT}; }}
.tl-reader {{ padding: 10px 12px; border-radius: 8px; white-space: pre-wrap; overflow-wrap: anywhere; }}
.tl-token {{ padding: 2px 1px; border-radius: 3px; }}
.tl-answer {{ font-weight: 600; }}
.tl-frame {{ font: 12px/1.4 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
.tl-frame {{ padding: 2px 4px; border: 1px solid var(--tl-line); }}
.tl-step-end {{ border-right: 2px solid var(--tl-line); border-radius: 3px 0 0 3px; padding-right: 4px; margin-right: 3px; }}
.tl-fired {{ outline: 1.5px solid var(--tl-text); box-shadow: 0 3px 0 1.5px var(--tl-text); margin-inline: 2px; }}
.tl-none {{ color: var(--tl-muted); font-style: italic; }}
.tl-reader p {{ margin: 0 0 8px; line-height: 1.6; }}
.tl-head {{ color: var(--tl-muted); font: 600 13px/1.4 {theme.FONT}; margin: 0 0 6px; overflow-wrap: anywhere; }}
.tl-columns {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 14px; }}
.tl-columns > section {{ min-width: 0; }}
.tl-reader + :is(.tl-reader, .tl-columns) {{ margin-top: 12px; }}
@media (max-width: 700px) {{ .tl-columns {{ grid-template-columns: 1fr; }} }}
""" + "\n".join(f".tl-level{level} {{ background: var(--tl-level{level}); }}" for level in range(-LEVELS, LEVELS + 1))
