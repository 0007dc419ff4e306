(() => {
  "use strict";
  // Rows came as columns, with every text once.
  const figures = JSON.parse(document.getElementById("specs").textContent, (_, part) => {
    if (!part?.packed) return part;
    const columns = Object.entries(part.packed).map(([name, { plain, words, at }]) => [name, plain ?? at.map(k => words[k])]);
    return columns[0][1].map((_, row) => Object.fromEntries(columns.map(([name, column]) => [name, column[row]])));
  });
  const views = new Map();

  // A scale takes its domain from these parameters while they hold one: that is the zoom.
  function zoomable(spec) {
    const made = structuredClone(spec);
    const axes = new Set();
    for (const layer of made.layer) {
      for (const channel of ["x", "y"]) {
        const found = layer.encoding?.[channel];
        if (found?.type !== "quantitative") continue;
        axes.add(channel);
        found.scale = { ...found.scale, domainRaw: { expr: `zoom_${channel}` } };
        if (found.axis?.values) {
          const ticks = JSON.stringify(found.axis.values);
          found.axis.values = { expr: `zoom_${channel} == null ? ${ticks} : null` };
        }
      }
      const mark = typeof layer.mark === "string" ? { type: layer.mark } : layer.mark;
      if (!mark.clip) layer.mark = { ...mark, clip: { expr: "zoom_x != null || zoom_y != null" } };
    }
    made.params = [...(made.params ?? []), { name: "zoom_x", value: null }, { name: "zoom_y", value: null }];
    return { made, axes };
  }

  // A chart without a number on an axis, as a matrix, is drawn larger instead.
  async function embed(figure, times) {
    const { made, axes } = zoomable(figures[figure.id].spec);
    const live = figure.querySelector(".live");
    const wide = figure.querySelector(".chart").clientWidth;
    const size = times === 1 ? { width: "container" } : { width: wide * times, height: made.height * times };
    const { view } = await vegaEmbed(live, { ...made, ...size }, {
      mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, logLevel: 1,
      tooltip: { disableDefaultStyle: true },
      ast: true, // expressions are interpreted: the page's policy lets nothing be evaluated
    });
    figure.classList.add("is-live");
    figure.classList.toggle("larger", times > 1);
    return { view, axes, live, times };
  }

  function upgrade(figure, times = 0) {
    if (!times && views.has(figure.id)) return views.get(figure.id);
    const old = views.get(figure.id);
    const made = Promise.resolve(old).then(before => { before?.view.finalize(); return embed(figure, times || 1); });
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
        const { view } = await upgrade(figure);
        view.signal("focus", on ? item.dataset.focus : null).runAsync();
      });
    }
  }

  function contents() {
    const links = new Map([...document.querySelectorAll("nav a")].map(a => [a.hash.slice(1), a]));
    const seen = new Set();
    const bar = document.querySelector("nav");
    const watch = new IntersectionObserver(entries => {
      for (const { target, isIntersecting } of entries) isIntersecting ? seen.add(target.id) : seen.delete(target.id);
      const current = [...links.keys()].find(id => seen.has(id));
      if (!current) return;
      for (const [id, link] of links) {
        if (id !== current) { link.removeAttribute("aria-current"); continue; }
        link.setAttribute("aria-current", "true");
        // On a narrow screen the contents are one line: keep the current part of it in sight.
        if (bar.scrollWidth > bar.clientWidth) bar.scrollTo({ left: link.offsetLeft - bar.clientWidth / 3 });
      }
    }, { rootMargin: "-10% 0px -70% 0px" });
    for (const id of links.keys()) watch.observe(document.getElementById(id));
  }

  // A link to something inside a closed <details> opens it.
  function reveal() {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    let closed = null;
    while ((closed = target.closest("details:not([open])"))) closed.open = true;
    target.scrollIntoView();
  }

  // The short version is what is printed, unless everything was asked for.
  function choices() {
    const folds = () => [...document.querySelectorAll("details.fold")];
    const bar = document.createElement("div");
    bar.className = "choices";
    const add = (label, act) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: label });
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(on));
        act(on);
      });
      bar.append(button);
    };
    add("Expand all", on => folds().forEach(fold => { fold.open = on; }));
    let shut = [];
    add("Print everything", on => document.documentElement.classList.toggle("whole", on));
    addEventListener("beforeprint", () => {
      shut = document.documentElement.classList.contains("whole") ? folds().filter(fold => !fold.open) : [];
      shut.forEach(fold => { fold.open = true; });
    });
    addEventListener("afterprint", () => shut.forEach(fold => { fold.open = false; }));
    if (folds().length) document.querySelector("header").append(bar);
  }

  // What a term means, beside it: on hover, on focus, and where there is neither, on a touch.
  function glossary() {
    const box = document.createElement("div");
    Object.assign(box, { className: "gloss", id: "gloss", hidden: true });
    box.setAttribute("role", "tooltip");
    document.body.append(box);
    const hide = () => { box.hidden = true; document.querySelector("[aria-describedby=gloss]")?.removeAttribute("aria-describedby"); };
    const show = term => {
      hide();
      const entry = document.getElementById(term.hash.slice(1));
      if (!entry) return;
      box.replaceChildren(...entry.cloneNode(true).childNodes);
      term.setAttribute("aria-describedby", "gloss");
      box.hidden = false;
      const at = term.getBoundingClientRect(), width = document.documentElement.clientWidth;
      const below = at.bottom + box.offsetHeight + 8 < innerHeight;
      box.style.left = `${Math.max(8, Math.min(at.left, width - box.offsetWidth - 8)) + scrollX}px`;
      box.style.top = `${(below ? at.bottom + 4 : at.top - box.offsetHeight - 4) + scrollY}px`;
    };
    const of = event => event.target.closest?.("a.term");
    for (const kind of ["mouseover", "focusin"]) addEventListener(kind, event => { if (of(event)) show(of(event)); });
    for (const kind of ["mouseout", "focusout"]) addEventListener(kind, event => { if (of(event)) hide(); });
    addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
    addEventListener("click", event => {
      if (of(event) && matchMedia("(hover: none)").matches) { event.preventDefault(); show(of(event)); }
    });
  }

  async function start() {
    const source = document.getElementById("bundle");
    // A browser that cannot unpack the libraries keeps the pictures.
    if (!source || !window.DecompressionStream) return;
    const packed = Uint8Array.from(atob(source.textContent), letter => letter.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
    source.remove();
    for (const figure of document.querySelectorAll("figure[id]")) tools(figure, figures[figure.id], times => upgrade(figure, times));
    const soon = new IntersectionObserver(entries => {
      for (const entry of entries) if (entry.isIntersecting) { soon.unobserve(entry.target); upgrade(entry.target); }
    }, { rootMargin: "600px 0px" });
    for (const figure of document.querySelectorAll("figure[id]")) soon.observe(figure);
  }

{% include "tools.js" %}

  for (const figure of document.querySelectorAll("figure[id]")) keyboard(figure);
  contents();
  choices();
  glossary();
  reveal();
  addEventListener("hashchange", reveal);
  // The pictures are there already: paint them first, then read the libraries.
  requestAnimationFrame(() => setTimeout(start, 0));
})();
