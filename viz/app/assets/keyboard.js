// What the keyboard can do beyond Tab and Enter: arrows along the tabs, space on links that act as buttons, "/" to search.
(() => {
  const STEP = { ArrowRight: 1, ArrowLeft: -1 };
  const writes = (element) => element.matches("input, select, textarea, [contenteditable]");
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (at.role === "tab") {
      const tabs = [...at.closest("[role=tablist]").querySelectorAll("[role=tab]")];
      const ends = { Home: 0, End: tabs.length - 1 };
      const to = event.key in ends ? ends[event.key] : (tabs.indexOf(at) + STEP[event.key] + tabs.length) % tabs.length;
      if (tabs[to]) {
        event.preventDefault();
        tabs[to].focus();
        tabs[to].click();
      }
    }
    if (event.key === " " && at.matches("a[role]")) {
      event.preventDefault();
      at.click();
    }
    if (event.key === "/" && !writes(at)) {
      event.preventDefault();
      const filters = document.getElementById("filters");
      if (filters) filters.open = true;
      document.getElementById("filter-search")?.focus();
    }
  });
})();
