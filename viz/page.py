"""The paper the report is written on: styles, the script that draws the figures, and the frame around both.

One file, nothing fetched: a content security policy forbids every request and lets only the two scripts written here run (by their
sha256), so that text from prompts cannot become code even if it were to slip through unescaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape

from . import theme
from .plotlyjs import plotlyjs
from .reader_style import STYLE as READER

STYLE = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--desk); color: var(--text); font: 16px/1.6 FONT; }
main, .top { max-width: 1060px; margin: 0 auto; padding: 0 24px; }
.top { display: flex; justify-content: space-between; align-items: center; gap: 16px; }
.top { padding-top: 20px; color: var(--muted); font-size: 14px; }
.top b { color: var(--text); letter-spacing: .01em; }
nav { display: flex; gap: 4px 18px; flex-wrap: wrap; padding: 14px 0; border-block: 1px solid var(--grid); font-size: 14px; }
a { color: inherit; text-decoration-color: var(--line); text-underline-offset: 3px; }
a:hover { text-decoration-color: currentColor; }
button { font: inherit; color: inherit; background: var(--paper); padding: 4px 14px; cursor: pointer; }
button { border: 1px solid var(--grid); border-radius: 999px; }
button:hover { border-color: var(--line); }
h1 { font-size: clamp(28px, 5vw, 42px); line-height: 1.15; letter-spacing: -.02em; font-weight: 650; }
h1 { margin: 36px 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 26px; line-height: 1.25; letter-spacing: -.015em; font-weight: 650; margin: 64px 0 6px; }
h3 { font-size: 17px; line-height: 1.35; font-weight: 620; margin: 0; }
.lede { color: var(--muted); margin: 0 0 28px; max-width: 68ch; }
h2 + .lede { margin-bottom: 20px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(225px, 1fr)); gap: 14px; }
.cards { margin: 0 0 32px; padding: 0; list-style: none; }
.cards li { background: var(--paper); border: 1px solid var(--grid); border-radius: 12px; padding: 18px 20px; }
.cards .question { color: var(--muted); font-size: 14px; line-height: 1.4; margin: 0; min-height: 2.8em; }
.cards .number { font-size: 29px; line-height: 1.25; font-weight: 650; letter-spacing: -.02em; margin: 6px 0; }
.cards .number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.cards .detail { font-size: 13.5px; line-height: 1.5; color: var(--muted); margin: 0; }
figure, .sheet { margin: 0 0 22px; background: var(--paper); border: 1px solid var(--grid); border-radius: 12px; padding: 20px 22px; }
.note { color: var(--muted); font-size: 13.5px; margin: 2px 0 6px; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.plot { width: 100%; min-width: 400px; }
figcaption { border-top: 1px solid var(--grid); margin-top: 10px; padding-top: 14px; max-width: 78ch; overflow-wrap: anywhere; }
.notice { border: 1px dashed var(--line); border-radius: 12px; padding: 14px 20px; margin: 0 0 22px; }
.notice { color: var(--muted); overflow-wrap: anywhere; }
.whole { white-space: nowrap; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 8px 16px 8px 0; border-bottom: 1px solid var(--grid); }
tr:last-child > * { border-bottom: 0; }
thead th { color: var(--muted); font-weight: 500; white-space: nowrap; }
tbody th { font-weight: 550; }
td small { display: block; color: var(--muted); font-size: 12px; white-space: nowrap; }
.facts th { color: var(--muted); font-weight: 400; width: 30%; overflow-wrap: anywhere; }
.facts td { overflow-wrap: anywhere; }
details { background: var(--paper); border: 1px solid var(--grid); border-radius: 12px; padding: 12px 20px; margin: 0 0 12px; }
summary { cursor: pointer; }
summary small { color: var(--muted); }
footer { color: var(--muted); font-size: 13px; padding: 20px 0 60px; }
@media (max-width: 640px) {
  main, .top { padding-inline: 14px; }
  figure, .sheet { padding: 16px 12px; border-radius: 10px; }
  h2 { margin-top: 48px; }
  .cards .question { min-height: 0; }
}
@media print {
  button, nav { display: none; }
  body { background: #fff; }
  figure, .cards li, .sheet { break-inside: avoid; }
}
""".replace("FONT", theme.FONT)

SCRIPT = """
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const themes = read("themes"), dark = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement;
const mode = () => root.dataset.theme || (dark.matches ? "dark" : "light");
const roomy = matchMedia("(hover: hover) and (min-width: 641px)").matches;
const tools = { displayModeBar: roomy ? "hover" : false, modeBarButtons: [["toImage", "zoom2d", "resetScale2d"]] };
const config = { responsive: true, displaylogo: false, ...tools };
const plots = [...document.querySelectorAll(".plot")];
const specs = new Map(plots.map((plot) => [plot, read(plot.dataset.figure)]));
function draw() {
  for (const [plot, spec] of specs) Plotly.react(plot, spec.data, { ...spec.layout, template: themes[mode()] }, config);
  document.getElementById("mode").textContent = mode() === "dark" ? "Light" : "Dark";
}
document.getElementById("mode").addEventListener("click", () => { root.dataset.theme = mode() === "dark" ? "light" : "dark"; draw(); });
dark.addEventListener("change", draw);
let screen = "";
addEventListener("beforeprint", () => { screen = root.dataset.theme || ""; root.dataset.theme = "light"; draw(); });
addEventListener("afterprint", () => { root.dataset.theme = screen; draw(); });
draw();
"""

DESK = {"light": "#f6f6f4", "dark": "#0f1215"}


def _colors(mode: theme.Mode) -> str:
    ink = theme.INK[mode]
    names = {"desk": DESK[mode], "paper": ink.paper, "text": ink.text, "muted": ink.muted, "grid": ink.grid, "line": ink.line}
    return "color-scheme: " + mode + "; " + " ".join(f"--{name}: {color};" for name, color in names.items())


def data_block(name: str, value: object) -> str:
    """JSON inside a page: `<` is written as an escape, so no text in it can close the block."""
    text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def page(title: str, body: str) -> str:
    """The whole document. `title` is text, `body` is HTML whose data was escaped."""
    plotly = plotlyjs()
    hashes = " ".join("'sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() + "'" for code in (plotly, SCRIPT))
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    dark = _colors("dark")
    unless_light = f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ {dark} }} }}"
    colors = f":root {{ {_colors('light')} }} {unless_light} :root[data-theme=dark] {{ {dark} }}"
    themes = {mode: theme.look(mode) for mode in theme.INK}
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · thoughtlens</title>
<style>{colors}{STYLE}{READER}</style>
</head>
<body>
<div class="top">
<span><b>thoughtlens</b> · run report</span>
<button id="mode" type="button" aria-label="Switch between light and dark">Dark</button>
</div>
<main>
{body}
</main>
{data_block("themes", themes)}
<script>{plotly}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""
