  // Zoom and downloads of a figure. Domains are cut in the scale's own space, so logarithms stay even.
  function tools(figure, { spec, csv }, upgrade) {
    const bar = document.createElement("div");
    bar.className = "tools";
    bar.setAttribute("role", "toolbar");
    bar.setAttribute("aria-label", `Tools for: ${heading(figure)}`);
    const add = (label, title, act) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: label, title });
      button.setAttribute("aria-label", title);
      button.addEventListener("click", act);
      bar.append(button);
      return button;
    };
    add("+", "Zoom in (arrow keys move, 0 resets)", () => step(0.5));
    add("\u2212", "Zoom out", () => step(2));
    const reset = add("Reset zoom", "Show everything again", () => step(0));
    reset.hidden = true;
    add("SVG", "Download the picture as SVG", () => save("svg", picture(figure), "image/svg+xml"));
    add("CSV", "Download the data as CSV", () => save("csv", records(spec, csv), "text/csv"));
    figure.querySelector("figcaption").after(bar);
    const chart = figure.querySelector(".chart");

    function save(ending, text, type) {
      const link = document.createElement("a");
      link.download = `${document.querySelector("main").dataset.name}.${figure.id.replace("fig-", "")}.${ending}`;
      link.href = URL.createObjectURL(new Blob([text], { type }));
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }

    // Positions are shares of the plotting area: [0, 1] is what is seen now.
    async function show(shares) {
      const { view, axes } = await upgrade();
      for (const channel of axes) {
        const share = shares?.[channel];
        const scale = view.scale(channel);
        const range = scale.range();
        if (!shares) view.signal(`zoom_${channel}`, null);
        else if (share) {
          const ends = share.map(s => scale.invert(range[0] + s * (range[1] - range[0])));
          view.signal(`zoom_${channel}`, inside(ends, full(channel, scale)));
        }
      }
      await view.runAsync();
      reset.hidden = !["zoom_x", "zoom_y"].some(name => view.signal(name));
    }

    const whole = {};
    function full(channel, scale) { return whole[channel] ??= scale.domain(); }

    // Never beyond what there was at first; null is all of it.
    function inside([low, high], [first, last]) {
      const cut = [Math.max(low, first), Math.min(high, last)];
      if (cut[0] <= first && cut[1] >= last) return null;
      return cut[1] > cut[0] ? cut : [first, last];
    }

    async function step(factor, at = 0.5) {
      const made = await upgrade();
      if (!made.axes.size) {
        const times = factor === 0 ? 1 : Math.min(Math.max(made.times / factor, 1), 8);
        if (times !== made.times) await upgrade(times);
        reset.hidden = times === 1;
      } else if (!factor) await show(null);
      else {
        const share = [at - factor * at, at + factor * (1 - at)];
        await show({ x: share, y: factor > 1 || at === 0.5 ? [0.5 - factor / 2, 0.5 + factor / 2] : null });
      }
    }

    bar.addEventListener("keydown", event => {
      const moves = { ArrowLeft: ["x", -0.25], ArrowRight: ["x", 0.25], ArrowUp: ["y", 0.25], ArrowDown: ["y", -0.25] };
      if (event.key === "0") step(0);
      else if (moves[event.key] && !reset.hidden) {
        event.preventDefault();
        const [channel, by] = moves[event.key];
        if (figure.classList.contains("larger")) chart.scrollBy(channel === "x" ? { left: by * 400 } : { top: -by * 400 });
        else show({ [channel]: [by, 1 + by] });
      }
    });

    // With a mouse: drag over a part to see it alone, double-click for everything.
    chart.addEventListener("pointerdown", async event => {
      if (event.pointerType !== "mouse" || event.button) return;
      const { axes } = await upgrade();
      const frame = chart.querySelector(".live svg .background")?.getBoundingClientRect();
      if (!axes.size || !frame) return;
      const share = e => [(e.clientX - frame.left) / frame.width, (frame.bottom - e.clientY) / frame.height]
        .map(s => Math.min(Math.max(s, 0), 1));
      const from = share(event), box = document.createElement("div");
      box.className = "brush";
      const move = e => {
        const to = share(e), own = chart.getBoundingClientRect();
        const [x, y] = [0, 1].map(k => axes.has("xy"[k]) ? [from[k], to[k]].sort((a, b) => a - b) : [0, 1]);
        Object.assign(box.style, {
          left: `${frame.left - own.left + x[0] * frame.width}px`, width: `${(x[1] - x[0]) * frame.width}px`,
          top: `${frame.top - own.top + (1 - y[1]) * frame.height}px`, height: `${(y[1] - y[0]) * frame.height}px`,
        });
        if (!box.isConnected) chart.append(box);
      };
      const done = async e => {
        removeEventListener("pointermove", move);
        box.remove();
        const to = share(e);
        const shares = {};
        for (const k of [0, 1]) {
          // A drag along one axis leaves the other one as it is.
          const part = [from[k], to[k]].sort((a, b) => a - b);
          const pixels = (part[1] - part[0]) * (k ? frame.height : frame.width);
          if (axes.has("xy"[k]) && pixels > 24) shares["xy"[k]] = part;
        }
        if (Object.keys(shares).length) await show(shares);
      };
      event.preventDefault();
      addEventListener("pointermove", move);
      addEventListener("pointerup", done, { once: true });
    });
    chart.addEventListener("dblclick", () => step(0));
    // Pinching a trackpad comes as a wheel with the control key; a plain wheel scrolls the page.
    chart.addEventListener("wheel", event => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      const frame = chart.querySelector(".live svg .background")?.getBoundingClientRect();
      if (frame) step(event.deltaY < 0 ? 0.8 : 1.25, (event.clientX - frame.left) / frame.width);
    }, { passive: false });
  }

  function heading(figure) { return figure.querySelector("h3").textContent.replace(/#$/, "").trim(); }

  // The picture as it is on the screen, with colours and ground of its own.
  function picture(figure) {
    const shown = [...figure.querySelectorAll(".chart svg")].find(svg => svg.checkVisibility({ visibilityProperty: true }));
    const copy = shown.cloneNode(true);
    const [from, to] = [shown, copy].map(svg => [svg, ...svg.querySelectorAll("*")]);
    from.forEach((element, k) => {
      const style = getComputedStyle(element);
      for (const name of ["fill", "stroke"]) {
        if (/var\(/.test(element.getAttribute(name) ?? "") || element.style[name]) to[k].setAttribute(name, style[name]);
      }
      to[k].removeAttribute("style");
    });
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.removeAttribute("aria-hidden");
    const add = (name, text) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      element.textContent = text;
      return element;
    };
    const ground = add("rect", "");
    for (const [name, value] of Object.entries({ width: "100%", height: "100%", fill: getComputedStyle(document.documentElement).backgroundColor })) ground.setAttribute(name, value);
    copy.prepend(add("title", heading(figure)), add("desc", figure.querySelector("figcaption").textContent), ground);
    return new XMLSerializer().serializeToString(copy);
  }

  // The rows behind the marks, one per mark, with the heads that the page gives them.
  function records(spec, heads) {
    const names = Object.keys(heads);
    const words = new Set(["said", "f_said", "m_said", "shade", "text", "own", "color", "number"]);
    const sources = new Map([spec, ...spec.layer].filter(part => part.data)
      .map(({ data }) => [data.name ?? JSON.stringify(data), data.values ?? spec.datasets[data.name]]));
    const rows = [...sources.values()].flat().filter(row => names.every(name => name in row));
    const columns = names.length ? names : [...new Set(rows.flatMap(row => Object.keys(row)))].filter(name => !words.has(name));
    // A spreadsheet would take a text that begins so for a formula.
    const entry = value => {
      const text = value === null || value === undefined ? "" : String(value);
      const safe = typeof value === "string" && /^[=+@\t\r-]/.test(text) ? `'${text}` : text;
      return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    const lines = [columns.map(name => heads[name] ?? name), ...rows.map(row => columns.map(name => row[name]))];
    return lines.map(line => line.map(entry).join(",")).join("\r\n") + "\r\n";
  }
