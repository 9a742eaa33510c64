// The URL is the only state: everything that is chosen writes it, and everything that is shown follows from it.
(() => {
  const LISTED = ["model", "condition", "benchmark", "attack", "category", "verdict", "search"];
  const WAIT = { search: 300, range: 120 };
  const search = () => document.getElementById("filter-search");
  const timers = {};

  function go(query) {
    const to = query === "?" ? "" : query;
    if (to === location.search) return;
    history.pushState({}, "", location.pathname + to);
    dispatchEvent(new PopStateEvent("popstate"));
  }

  function patch(values) {
    const asked = new URLSearchParams(location.search);
    for (const [key, value] of Object.entries(values)) value === "" || value == null ? asked.delete(key) : asked.set(key, value);
    if (Object.keys(values).some((key) => LISTED.includes(key))) asked.delete("page");
    go("?" + asked.toString().replaceAll("+", "%20"));
  }

  function later(key, wait, act) {
    clearTimeout(timers[key]);
    timers[key] = setTimeout(() => (delete timers[key], act()), wait);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="?"], button[data-go]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    if (link.dataset.then) thoughtlens.then = link.dataset.then;
    go(link.dataset.go || link.getAttribute("href"));
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches("select[data-key]")) patch({ [event.target.dataset.key]: event.target.value });
  });

  document.addEventListener("input", (event) => {
    const at = event.target;
    if (at === search()) later("search", WAIT.search, () => patch({ search: at.value.trim() }));
    const slide = at.closest(".slide");
    if (!slide || at.type !== "range") return;
    const value = slide.dataset.values.split(" ")[at.value];
    slide.querySelector(".told").textContent = at.ariaValueText = value;
    later(slide.dataset.key, WAIT.range, () => patch({ [slide.dataset.key]: value }));
  });

  // A name in a figure may have been written for plotly, which reads entities; what is chosen is the name itself.
  const plain = (text) => new DOMParser().parseFromString(String(text), "text/html").documentElement.textContent;
  function known(key, value) {
    const there = [...document.querySelectorAll(`#filter-${key} option`)].map((option) => option.value);
    return [String(value), plain(value)].find((name) => name && there.includes(name));
  }
  const filter = (key) => ([value]) => known(key, value) && { [key]: known(key, value) };
  const FOLLOWED = {
    cell: ([layer, span]) => span && Number.isInteger(layer) && { layer, span },
    category: filter("category"),
    attack: filter("attack"),
    point: ([prompt, model, condition]) =>
      prompt && { tab: "thoughts", prompt, left: condition === "unsteered" ? model : `${model} @ ${condition}` },
  };

  // What a point carries; of a cell of a heatmap it is found by its place.
  function carried(figure, point) {
    if (point.customdata !== undefined) return [point.customdata].flat();
    const { x, y, customdata } = figure.data[point.curveNumber];
    return customdata?.[[...(y || [])].indexOf(point.y)]?.[[...(x || [])].indexOf(point.x)];
  }

  // A click on a figure, followed by the link that it names.
  function clicked(figure, point) {
    const data = point && carried(figure, point);
    const values = data && FOLLOWED[figure.dataset.link]?.(data);
    if (values) patch(values);
  }

  // A slider stands where the page says, unless it is being moved.
  function slides() {
    for (const rail of document.querySelectorAll(".rail")) {
      const { key, values } = rail.parentElement.dataset;
      const there = values.split(" ");
      const input = rail.firstElementChild || rail.appendChild(document.createElement("input"));
      Object.assign(input, { type: "range", id: rail.dataset.input, min: 0, step: 1, max: Math.max(1, there.length - 1), disabled: there.length < 2 });
      if (!timers[key]) Object.assign(input, { value: rail.dataset.at, ariaValueText: there[rail.dataset.at] });
    }
  }

  // The filter row says what the URL says; a text that is being written is left alone.
  function filters() {
    const asked = new URLSearchParams(location.search);
    for (const select of document.querySelectorAll("#filters select")) select.value = asked.get(select.dataset.key) || "";
    const box = search();
    if (box && document.activeElement !== box) dash_clientside.set_props("filter-search", { value: asked.get("search") || "" });
  }

  const thoughtlens = Object.assign((window.thoughtlens ||= {}), { clicked, filters, slides, then: "" });
  window.dash_clientside = Object.assign(window.dash_clientside || {}, {
    address: {
      arrived() {
        filters();
        return dash_clientside.no_update;
      },
    },
  });
})();
