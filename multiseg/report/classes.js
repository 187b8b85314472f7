"use strict";

// ---- confusion matrix: a heat map of one run, as shares of the rows or as pixels --------------------------------------

(() => {
  const data = JSON.parse(document.getElementById("class-data").textContent);
  const { names, colours } = data;
  const colour = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
  const DENSE = 40; // classes from which the cells have no numbers

  const box = document.getElementById("confusion");
  const chosen = (name) => document.querySelector(`input[name=${name}]:checked`)?.value;
  const compact = (count) => count < 1000 ? String(count) : count < 99950 ? `${+(count / 1000).toPrecision(count < 9950 ? 2 : 3)}k`
    : count < 999500 ? `${Math.round(count / 1000)}k` : count < 99.5e6 ? `${+(count / 1e6).toPrecision(2)}M` : `${Math.round(count / 1e6)}M`;
  const percent = (part) => (part >= 0.005 ? String(Math.round(100 * part)) : "");

  function element(tag, parent, text, classes = "") {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (classes) made.className = classes;
    parent.append(made);
    return made;
  }

  function swatch(parent, index) {
    element("i", parent, "", "swatch").style.setProperty("--c", colour(colours[index]));
  }

  function drawConfusion() {
    if (!box || !data.confusions.length) return;
    const counts = data.confusions[Number(chosen("confusion-run") ?? 0)];
    const shares = (chosen("confusion-unit") ?? "percent") === "percent";
    const table = document.createElement("table");
    table.className = `confusion${shares ? "" : " counts"}${counts.length > DENSE ? " dense" : ""}`;
    const head = table.createTHead().insertRow();
    element("td", head).style.background = "none";
    counts.forEach((_, column) => {
      const cell = element("th", head);
      cell.scope = "col";
      element("span", cell, names[column]);
      swatch(cell, column);
    });
    element("th", head, "labels", "total");
    const body = table.createTBody();
    counts.forEach((row, index) => {
      const total = row.reduce((sum, count) => sum + count, 0);
      const line = body.insertRow();
      const first = element("th", line, names[index]);
      first.scope = "row";
      swatch(first, index);
      row.forEach((count, column) => {
        const part = total ? count / total : 0;
        const cell = line.insertCell();
        cell.textContent = shares ? percent(part) : count ? compact(count) : "";
        cell.style.setProperty("--p", part.toFixed(3));
        cell.className = [part > 0.45 ? "strong" : "", column === index ? "own" : ""].join(" ").trim();
        cell.title = `${names[index]} predicted as ${names[column]}: ${count.toLocaleString("en")} pixels, ${(100 * part).toFixed(1)} % of its labels`;
      });
      element("td", line, total.toLocaleString("en"), "total");
    });
    box.replaceChildren(table);
  }
  document.querySelectorAll("#confusion-controls input").forEach((input) => input.addEventListener("change", drawConfusion));
  drawConfusion();

  // ---- gallery: class maps are decoded when they come near the window, and drawn over the input ------------------------

  const FADED = 0.3; // of the input below wrong pixels and disagreements
  const opacity = document.getElementById("opacity");
  const outline = document.getElementById("outline");
  const ignored = new Set(data.ignored);
  const decoded = new Map(); // number of the case -> promise of its input, target and the runs' classes
  const visible = new Set(); // canvases near the window
  let single = null; // the class that is singled out by pointing
  let pinned = null; // or by a click

  async function pixels(uri) {
    const image = new Image();
    image.src = uri;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const { data: rgba } = context.getImageData(0, 0, image.width, image.height);
    return Uint8Array.from({ length: rgba.length / 4 }, (_, at) => rgba[4 * at]); // grey: R is the class
  }

  async function decode(number) {
    const stored = data.cases[number];
    const input = new Image();
    input.src = stored.input;
    await input.decode();
    const [target, ...runs] = await Promise.all([stored.target, ...stored.runs].map(pixels));
    return { input, target, runs, width: input.width, height: input.height };
  }

  const load = (number) => {
    if (!decoded.has(number)) decoded.set(number, decode(number));
    return decoded.get(number);
  };

  // Which pixels are at most `width` pixels from a pixel of another class, in rows and columns.
  function border(classes, columns, width) {
    const marked = new Uint8Array(classes.length);
    for (let distance = 1; distance <= width; distance += 1) {
      for (let at = 0; at < classes.length; at += 1) {
        if (at % columns >= distance && classes[at] !== classes[at - distance]) marked[at] = marked[at - distance] = 1;
        const above = at - distance * columns;
        if (above >= 0 && classes[at] !== classes[above]) marked[at] = marked[above] = 1;
      }
    }
    return marked;
  }

  const hidden = (index) => index === data.background || index >= names.length || (single ?? pinned ?? index) !== index;

  function paint(canvas, loaded) {
    const { kind, run } = canvas.dataset;
    const { input, target, runs, width, height } = loaded;
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    if (kind === "wrong" || kind === "split") {
      context.globalAlpha = FADED;
      context.filter = "grayscale(1)";
    }
    context.drawImage(input, 0, 0, width, height);
    context.globalAlpha = 1;
    context.filter = "none";
    if (kind === "input") return;
    const layer = new ImageData(width, height);
    const put = (at, [r, g, b], alpha) => layer.data.set([r, g, b, alpha], 4 * at);
    if (kind === "split") {
      for (let at = 0; at < target.length; at += 1) {
        const votes = runs.map((one) => runs.filter((other) => other[at] === one[at]).length);
        const others = runs.length - Math.max(...votes);
        if (others) put(at, [112, 40, 140], 255 * (0.4 + 0.6 * others / (runs.length - 1)));
      }
    } else {
      const classes = kind === "target" ? target : runs[run];
      const lines = kind === "wrong" ? null : border(classes, width, Number(outline.value));
      const alpha = 255 * opacity.value;
      for (let at = 0; at < classes.length; at += 1) {
        const index = classes[at];
        if (kind === "wrong") {
          const counts = target[at] < names.length && !ignored.has(target[at]);
          if (counts && target[at] !== index && (single ?? pinned ?? index) === index) put(at, colours[index], 255);
        } else if (!hidden(index) && !(kind === "target" && ignored.has(index))) {
          put(at, colours[index], lines[at] ? 255 : alpha);
        }
      }
    }
    const over = new OffscreenCanvas(width, height);
    over.getContext("2d").putImageData(layer, 0, 0);
    context.drawImage(over, 0, 0);
  }

  async function refresh(canvas) {
    paint(canvas, await load(Number(canvas.dataset.case)));
  }

  const refreshAll = () => visible.forEach(refresh);
  const watcher = new IntersectionObserver((entries) => {
    for (const { target: canvas, isIntersecting } of entries) {
      if (isIntersecting) {
        visible.add(canvas);
        refresh(canvas);
      } else visible.delete(canvas);
    }
  }, { rootMargin: "400px" });
  const canvases = [...document.querySelectorAll(".class-cases canvas")];
  canvases.forEach((canvas) => {
    watcher.observe(canvas);
    canvas.addEventListener("pointermove", async (event) => {
      const loaded = await load(Number(canvas.dataset.case));
      const x = Math.floor(event.offsetX / canvas.clientWidth * loaded.width);
      const y = Math.floor(event.offsetY / canvas.clientHeight * loaded.height);
      const at = y * loaded.width + x;
      const named = (index) => (ignored.has(index) ? "ignored" : names[index] ?? `label ${index}`);
      const lines = [`target: ${named(loaded.target[at])}`, ...loaded.runs.map((classes, run) => `${data.runs[run]}: ${names[classes[at]]}`)];
      canvas.title = lines.join("\n");
    });
  });

  opacity?.addEventListener("input", refreshAll);
  outline?.addEventListener("input", refreshAll);
  const buttons = [...document.querySelectorAll("#legend button")];
  for (const button of buttons) {
    const index = Number(button.dataset.class);
    const show = (value) => () => { single = value; refreshAll(); };
    button.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") show(index)(); });
    button.addEventListener("pointerleave", show(null));
    button.addEventListener("click", () => {
      pinned = pinned === index ? null : index;
      buttons.forEach((other) => { other.ariaPressed = String(Number(other.dataset.class) === pinned); });
      refreshAll();
    });
  }
})();
