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
    const closed = target && target.closest("details:not([open])");
    if (closed) { closed.open = true; target.scrollIntoView(); }
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
  reveal();
  addEventListener("hashchange", reveal);
  // The pictures are there already: paint them first, then read the libraries.
  requestAnimationFrame(() => setTimeout(start, 0));
})();
