// Puts what the server sent on the page: of all parts (app/parts.py) only what differs from what is there, so that a figure that did not
// change is not drawn again, and the element with the focus stays.
//
// Figures in sight are drawn first, the others one at a time when the browser has nothing else to do, or when they come into sight; until
// then their place is kept free, or they stand as they were. A figure that the server has not drawn yet stays dimmed where an older one is.
(() => {
  let shown = {}; // every part as it was last put on the page
  let latest = {}; // every part as it was last sent
  let focused = "";
  const drawn = new Map(); // part around a figure -> the figure as it was last drawn

  const isPart = (value) => value && typeof value === "object" && value.part;
  const figureIn = (part) => part?.props.children?.type === "Graph" && part.props.children.part;
  const free = (figure) => ({ type: "Div", namespace: "dash_html_components", props: { className: "later", style: figure.props.style } });
  function whole(value, parts) {
    if (Array.isArray(value)) return value.map((one) => whole(one, parts));
    if (isPart(value)) {
      const part = parts[value.part], figure = figureIn(part);
      if (!figure) return whole(part, parts);
      drawn.delete(value.part);
      return { ...part, props: { ...part.props, children: free(parts[figure]) } };
    }
    if (!value || !value.props) return value;
    return { ...value, props: { ...value.props, children: whole(value.props.children, parts) } };
  }
  function nested(value, found = []) {
    if (Array.isArray(value)) value.forEach((one) => nested(one, found));
    else if (isPart(value)) found.push(value.part);
    else if (value && value.props) nested(value.props.children, found);
    return found;
  }
  const written = (part) => Object.fromEntries(Object.entries(part.props).map(([name, value]) => [name, JSON.stringify(value)]));

  function differing(before, now, part) {
    const names = [...new Set([...Object.keys(before), ...Object.keys(now)])].filter((name) => before[name] !== now[name]);
    return Object.fromEntries(names.map((name) => [name, part.props[name] ?? null]));
  }

  function settle(key, parts, before, now) {
    const part = parts[key], changed = differing(before[key] || {}, now[key], part);
    if ("children" in changed) {
      drawn.delete(key);
      changed.children = figureIn(part) ? free(parts[figureIn(part)]) : whole(part.props.children, parts);
    }
    if (Object.keys(changed).length) dash_clientside.set_props(part.props.id, changed);
    if (!("children" in changed) && !figureIn(part)) nested(part.props.children).forEach((inner) => settle(inner, parts, before, now));
  }

  // Where the server is still drawing, what stood there stays, dimmed.
  function keepOld(parts) {
    const copy = (key) => {
      parts[key] = latest[key];
      nested(parts[key].props.children).forEach(copy);
    };
    for (const [key, part] of Object.entries(parts)) {
      const old = latest[key];
      if (!part.props["data-pending"] || !old || old.props["data-pending"]) continue;
      copy(key);
      parts[key] = { ...old, props: { ...old.props, className: "stale" } };
    }
  }

  const waiting = () => Object.keys(latest).filter((key) => figureIn(latest[key]) && drawn.get(key) !== latest[figureIn(latest[key])]);
  function distance(key) {
    const box = document.getElementById(key)?.getBoundingClientRect();
    return box ? Math.max(0, box.top - innerHeight, -box.bottom) : NaN;
  }
  function draw(key) {
    const figure = latest[figureIn(latest[key])], before = drawn.get(key);
    const changed = before && differing(written(before), written(figure), figure);
    drawn.set(key, figure);
    if (!before) dash_clientside.set_props(latest[key].props.id, { children: figure });
    else if (Object.keys(changed).length) dash_clientside.set_props(figure.props.id, changed);
  }

  const whenIdle = window.requestIdleCallback || ((act) => setTimeout(act, 50));
  let asked = false;
  function drawInSight() {
    if (!window.Plotly) return; // comes (layout.py); a figure before it would fetch another
    for (const key of waiting()) if (distance(key) === 0) draw(key);
    if (asked || !waiting().length) return;
    asked = true;
    whenIdle(() => {
      asked = false;
      const [next] = waiting().filter((key) => distance(key) >= 0).sort((one, other) => distance(one) - distance(other));
      if (next) draw(next);
      requestAnimationFrame(drawInSight);
    });
  }
  for (const kind of ["scroll", "resize"]) addEventListener(kind, () => requestAnimationFrame(drawInSight), { passive: true, capture: true });

  function keepPlace(tabChanged) {
    thoughtlens.slides();
    const tabs = document.getElementById("tabs");
    const { offsetLeft: left, offsetWidth: width } = tabs.querySelector("[aria-selected=true]");
    if (left < tabs.scrollLeft || left + width > tabs.scrollLeft + tabs.clientWidth) tabs.scrollLeft = left - 20;
    const then = thoughtlens.then && document.getElementById(thoughtlens.then);
    if (then) {
      thoughtlens.then = "";
      then.focus({ preventScroll: true });
      then.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    } else if (tabChanged) scrollTo(0, 0);
    const lost = focused && document.activeElement === document.body && document.getElementById(focused);
    if (lost) lost.focus({ preventScroll: true });
  }
  document.addEventListener("focusin", (event) => (focused = event.target.id));
  document.addEventListener("pointerdown", () => (focused = ""));

  document.getElementById("plotlyjs").addEventListener("load", drawInSight);

  thoughtlens.waiting = () => waiting().length;
  window.dash_clientside = Object.assign(window.dash_clientside || {}, {
    parts: {
      apply(sent) {
        if (!sent) return dash_clientside.no_update;
        keepOld(sent.parts);
        const now = Object.fromEntries(Object.entries(sent.parts).map(([key, part]) => [key, written(part)]));
        const tab = shown.tabs?.["data-tab"];
        for (const key of sent.roots) settle(key, sent.parts, shown, now);
        document.title = sent.title;
        [shown, latest] = [now, sent.parts];
        if (sent.pending) dash_clientside.set_props("again", { data: Date.now() });
        requestAnimationFrame(() => {
          if (!tab) thoughtlens.filters();
          keepPlace(tab !== undefined && tab !== now.tabs["data-tab"]);
          drawInSight();
        });
        return dash_clientside.no_update;
      },
    },
  });
})();
