// Draws figures: every element that names its traces and says its layout (app/drawing.py). Those in sight come first, the others one at a
// time when the browser has nothing else to do, or when they come into sight; until then their place is free, or they stand as they were.
//
// The traces of a figure are sent once, as text under a name, and kept; the server is told which are there.
(() => {
  const MOST = 120; // traces that are kept
  const TOOLS = { displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "resetScale2d"]] };
  const traces = new Map(); // name -> traces of a figure, as JSON text
  const drawn = new Map(); // element -> what was drawn in it
  let paper = ""; // plotly's template, as JSON text

  const asked = (figure) => [figure.dataset.traces, paper, figure.dataset.layout];
  const same = (one, other) => one.every((value, at) => value === other[at]);
  const waiting = () => [...document.querySelectorAll("[data-traces]")].filter((figure) => !same(asked(figure), drawn.get(figure) || []));

  // False where traces are not there any more that the server counted on.
  function keep(sent) {
    const used = Object.values(sent.parts).map((part) => part.props["data-traces"]).filter(Boolean);
    const whole = used.every((name) => name in sent.traces || traces.has(name));
    for (const name of whole ? used : []) {
      const text = sent.traces[name] || traces.get(name);
      traces.delete(name);
      traces.set(name, text);
    }
    while (traces.size > MOST) traces.delete(traces.keys().next().value);
    paper = JSON.stringify(sent.look);
    dash_clientside.set_props("there", { data: whole ? [...traces.keys()] : [] });
    return whole;
  }

  // The shapes that mark what is chosen, where nothing else differs: drawn in a tenth of the time.
  function marks(before, now) {
    const [old, layout] = [before, now].map(([, , text]) => JSON.parse(text));
    const rest = ({ shapes, ...others }) => JSON.stringify(others);
    return before[0] === now[0] && before[1] === now[1] && rest(old) === rest(layout) && { shapes: layout.shapes || [] };
  }

  function draw(figure) {
    const before = drawn.get(figure), now = asked(figure), marked = before && marks(before, now);
    drawn.set(figure, now);
    if (marked) return void Plotly.relayout(figure, marked);
    const layout = { ...JSON.parse(figure.dataset.layout), autosize: true, template: JSON.parse(paper) };
    Plotly.react(figure, JSON.parse(traces.get(figure.dataset.traces)), layout, TOOLS);
    if (!before) figure.on("plotly_click", (event) => thoughtlens.clicked(figure, event.points[0]));
  }

  const distance = (figure) => {
    const { top, bottom } = figure.getBoundingClientRect();
    return Math.max(0, top - innerHeight, -bottom);
  };
  const whenIdle = window.requestIdleCallback || ((act) => setTimeout(act, 50));
  let later = false;
  function drawInSight() {
    if (!window.Plotly) return; // comes, and calls this (document.py)
    for (const figure of drawn.keys())
      if (!figure.isConnected) {
        Plotly.purge(figure);
        drawn.delete(figure);
      }
    const first = waiting().find((figure) => distance(figure) === 0);
    if (first) {
      setTimeout(drawInSight); // so that each is seen when it is there
      return draw(first);
    }
    if (later || !waiting().length) return;
    later = true;
    whenIdle(() => {
      later = false;
      const [next] = waiting().sort((one, other) => distance(one) - distance(other));
      if (next) draw(next);
      requestAnimationFrame(drawInSight);
    });
  }
  for (const kind of ["scroll", "resize"]) addEventListener(kind, () => requestAnimationFrame(drawInSight), { passive: true, capture: true });
  document.getElementById("plotlyjs").addEventListener("load", drawInSight);

  Object.assign((window.thoughtlens ||= {}), { keepTraces: keep, drawInSight, waiting: () => waiting().length });
})();
