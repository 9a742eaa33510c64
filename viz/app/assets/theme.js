// Light or dark: what the system prefers until the button says otherwise; the choice is kept for the next visit.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const KEY = "thoughtlens-theme";
  const mode = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  function kept(value) {
    try {
      return value ? localStorage.setItem(KEY, value) : localStorage.getItem(KEY);
    } catch {
      return null; // storage may be switched off
    }
  }
  if (["light", "dark"].includes(kept())) root.dataset.theme = kept();

  function told() {
    const button = document.getElementById("mode");
    if (button) button.textContent = mode() === "dark" ? "Light" : "Dark";
    dash_clientside.set_props("paper", { data: mode() });
  }
  document.addEventListener("click", (event) => {
    if (!event.target.closest("#mode")) return;
    root.dataset.theme = mode() === "dark" ? "light" : "dark";
    kept(root.dataset.theme);
    told();
  });
  dark.addEventListener("change", told);

  window.dash_clientside = Object.assign(window.dash_clientside || {}, {
    theme: {
      start() {
        const button = document.getElementById("mode");
        if (button) button.textContent = mode() === "dark" ? "Light" : "Dark";
        const filters = document.getElementById("filters");
        if (filters && matchMedia("(max-width: 640px)").matches) filters.open = false;
        return mode();
      },
    },
  });
})();
