// Puts what the server sent on the page: of all parts (app/parts.py) only what differs from what is there, so that a figure that did not
// change is not drawn again, and the element with the focus stays.
(() => {
  let shown = {};
  let focused = "";

  const isPart = (value) => value && typeof value === "object" && value.part;
  function whole(value, parts) {
    if (Array.isArray(value)) return value.map((one) => whole(one, parts));
    if (isPart(value)) return whole(parts[value.part], parts);
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

  function settle(key, parts, before, now) {
    const changed = {};
    for (const name of new Set([...Object.keys(before[key] || {}), ...Object.keys(now[key])])) {
      if (before[key]?.[name] !== now[key][name]) {
        const value = parts[key].props[name];
        changed[name] = name === "children" ? whole(value, parts) : value === undefined ? null : value;
      }
    }
    if (Object.keys(changed).length) dash_clientside.set_props(parts[key].props.id, changed);
    if (!("children" in changed)) nested(parts[key].props.children).forEach((inner) => settle(inner, parts, before, now));
  }

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

  window.dash_clientside = Object.assign(window.dash_clientside || {}, {
    parts: {
      apply(sent) {
        if (!sent) return dash_clientside.no_update;
        const now = Object.fromEntries(Object.entries(sent.parts).map(([key, part]) => [key, written(part)]));
        const tab = shown.tabs?.["data-tab"];
        for (const key of sent.roots) settle(key, sent.parts, shown, now);
        document.title = sent.title;
        shown = now;
        if (sent.pending) dash_clientside.set_props("again", { data: Date.now() });
        requestAnimationFrame(() => keepPlace(tab !== undefined && tab !== now.tabs["data-tab"]));
        return dash_clientside.no_update;
      },
    },
  });
})();
