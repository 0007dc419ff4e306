(() => {
  "use strict";
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const views = new Map();

  async function upgrade(figure) {
    if (views.has(figure.id)) return views.get(figure.id);
    const made = vegaEmbed(figure.querySelector(".live"), { ...specs[figure.id], width: "container" }, {
      mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, logLevel: 1,
      tooltip: { disableDefaultStyle: true },
    }).then(({ view }) => { figure.classList.add("is-live"); return view; });
    views.set(figure.id, made);
    return made;
  }

  function keyboard(figure) {
    for (const item of figure.querySelectorAll("[data-focus]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.append(...item.childNodes);
      item.append(button);
      button.addEventListener("click", async () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        for (const other of figure.querySelectorAll(".keys button")) other.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-pressed", String(on));
        const view = await upgrade(figure);
        view.signal("focus", on ? item.dataset.focus : null).runAsync();
      });
    }
  }

  function contents() {
    const links = new Map([...document.querySelectorAll("nav a")].map(a => [a.hash.slice(1), a]));
    const seen = new Set();
    const watch = new IntersectionObserver(entries => {
      for (const { target, isIntersecting } of entries) isIntersecting ? seen.add(target.id) : seen.delete(target.id);
      const current = [...links.keys()].find(id => seen.has(id));
      if (!current) return;
      for (const [id, link] of links) {
        if (id === current) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
      }
    }, { rootMargin: "-10% 0px -70% 0px" });
    for (const id of links.keys()) watch.observe(document.getElementById(id));
  }

  function start() {
    const source = document.getElementById("bundle");
    if (!source) return;
    const script = document.createElement("script");
    script.textContent = source.textContent;
    document.head.append(script);
    source.remove();
    const soon = new IntersectionObserver(entries => {
      for (const entry of entries) if (entry.isIntersecting) { soon.unobserve(entry.target); upgrade(entry.target); }
    }, { rootMargin: "600px 0px" });
    for (const figure of document.querySelectorAll("figure[id]")) soon.observe(figure);
  }

  for (const figure of document.querySelectorAll("figure[id]")) keyboard(figure);
  contents();
  // The pictures are there already: paint them first, then read the libraries.
  requestAnimationFrame(() => setTimeout(start, 0));
})();
