// Puts what the server sent on the page: of all parts (app/parts.py) only what differs from what is there, so that a figure that did not
// change is not drawn again, and the element with the focus stays. Text becomes text, never markup.
//
// Dash would do it, too, a hundred times slower: it keeps a record of every element. What is written here stands in elements of its frame
// (app/layout.py) that are empty as far as Dash knows, so it leaves them alone.
(() => {
  let shown = {}; // every part as it was last put on the page
  let latest = {}; // every part as it was last sent
  let focused = "";

  const isPart = (value) => value && typeof value === "object" && value.part;
  function nested(value, found = []) {
    if (Array.isArray(value)) value.forEach((one) => nested(one, found));
    else if (isPart(value)) found.push(value.part);
    else if (value && value.props) nested(value.props.children, found);
    return found;
  }

  const ATTRIBUTE = { className: "class", htmlFor: "for" };
  function put(element, name, value) {
    const attribute = ATTRIBUTE[name] || name;
    if (name === "style") Object.assign(element.style, value);
    else if (value == null || value === false) element.removeAttribute(attribute);
    else element.setAttribute(attribute, value === true ? "" : value);
  }

  // A list stands at what is chosen, and stays the same list, so that keys and the mouse can go on.
  function choose(element) {
    if ("chosen" in element.dataset) element.value = element.dataset.chosen;
  }

  // The elements of a tree of parts and components.
  function made(value, parts) {
    if (value == null) return [];
    if (Array.isArray(value)) return value.flatMap((one) => made(one, parts));
    if (typeof value !== "object") return [String(value)];
    const { type, props } = isPart(value) ? parts[value.part] : value;
    const element = document.createElement(type);
    for (const [name, told] of Object.entries(props)) if (name !== "children") put(element, name, told);
    element.append(...made(props.children, parts));
    choose(element);
    return [element];
  }

  const written = (part) => Object.fromEntries(Object.entries(part.props).map(([name, value]) => [name, JSON.stringify(value)]));
  function settle(key, parts, now) {
    const part = parts[key], before = shown[key] || {}, names = new Set([...Object.keys(before), ...Object.keys(now[key])]);
    const changed = [...names].filter((name) => before[name] !== now[key][name]);
    const element = document.getElementById(part.props.id);
    for (const name of changed) if (name !== "children") put(element, name, part.props[name]);
    if (changed.includes("children")) element.replaceChildren(...made(part.props.children, parts));
    else nested(part.props.children).forEach((inner) => settle(inner, parts, now));
    if (changed.length) choose(element);
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

  // Tokens of a text: white space, word, classes and title of each.
  function fillTokens() {
    for (const text of document.querySelectorAll("[data-tokens]")) {
      if (text.filled === text.dataset.tokens) continue;
      text.filled = text.dataset.tokens;
      const span = (textContent, className, title) => Object.assign(document.createElement("span"), { textContent, className, title });
      text.replaceChildren(...JSON.parse(text.filled).flatMap(([before, word, ...told]) => [before, word && span(word, ...told)].filter(Boolean)));
    }
  }

  function keepPlace(tabChanged) {
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

  function apply(sent) {
    const tab = shown.tabs?.["data-tab"], again = () => dash_clientside.set_props("again", { data: Date.now() });
    if (!thoughtlens.keepTraces(sent)) return again();
    keepOld(sent.parts);
    const now = Object.fromEntries(Object.entries(sent.parts).map(([key, part]) => [key, written(part)]));
    const choices = (parts) => parts["filter-choices"]?.children, fresh = choices(shown) !== choices(now);
    for (const key of sent.roots) settle(key, sent.parts, now);
    document.title = sent.title;
    [shown, latest] = [now, sent.parts];
    if (sent.pending) again();
    fillTokens();
    thoughtlens.slides();
    if (fresh) thoughtlens.filters();
    keepPlace(tab !== undefined && tab !== now.tabs["data-tab"]);
    thoughtlens.drawInSight();
  }

  window.dash_clientside = Object.assign(window.dash_clientside || {}, {
    parts: {
      apply(sent) {
        if (sent) apply(sent);
        return dash_clientside.no_update;
      },
    },
  });
})();
