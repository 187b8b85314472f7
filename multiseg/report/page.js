"use strict";

// ---- charts: one uPlot for each metric over all runs, one for each run's own loss -----------------------------------

(() => {
  const { runs, charts, classes, shared_loss } = JSON.parse(document.getElementById("curves-data").textContent);
  const root = document.documentElement;
  const unzoom = document.getElementById("unzoom");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let drawn = [];

  const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
  const ink = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const significant = (value) => value === 0 ? "0"
    : Math.abs(value) >= 1e-3 && Math.abs(value) < 1e6 ? String(+value.toPrecision(4)) : value.toExponential(2).replace(/\.?0+e/, "e");
  const written = { score: (value) => value.toFixed(3), number: significant };
  const duration = (seconds) => seconds < 99.5 ? `${+seconds.toFixed(1)} s`
    : seconds < 3600 ? `${Math.floor(seconds / 60)} min ${String(Math.round(seconds % 60)).padStart(2, "0")} s`
    : `${(seconds / 3600).toFixed(2)} h`;
  const counts = [1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000];
  const clock = [0.01, 0.1, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 18000, 36000, 86400];
  const ticked = (seconds) => seconds % 60 ? duration(seconds)
    : seconds % 3600 ? `${seconds / 60} min` : seconds ? `${seconds / 3600} h` : "0";

  // Lines have different x values if x is time, so each line is a table, and uPlot joins the tables.
  function draw(parent, title, lines, { kind, log, wide, stepped }) {
    const across = chosen("x");
    const logarithmic = log && chosen("y") === "log";
    const box = document.createElement("div");
    box.className = wide ? "chart wide" : "chart";
    box.innerHTML = "<h4></h4>";
    box.firstChild.textContent = title;
    parent.append(box);

    const tables = lines.map((line) => {
      const ys = logarithmic ? line.ys.map((y) => (y > 0 ? y : null)) : line.ys;
      return [line.run[across], ys];
    });
    const data = tables.length ? uPlot.join(tables) : [[], []];
    const axis = {
      stroke: ink("--muted"), font: "12px system-ui, sans-serif",
      grid: { stroke: ink("--rule"), width: 1 }, ticks: { stroke: ink("--rule"), width: 1, size: 4 },
    };
    const say = (value) => (value == null ? "–" : written[kind](value));
    const plot = new uPlot({
      width: box.clientWidth, height: wide ? 320 : 220,
      scales: { x: { time: false }, y: logarithmic ? { distr: 3, range: (_, low, high) => uPlot.rangeLog(low, high, 10, false) }
        : kind === "score" ? { range: (_, low, high) => (low < high ? uPlot.rangeNum(low, high, 0.1, true) : [0, 1]) } : {} },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map((x) => (across === "epoch" ? x : ticked(x))),
          size: 32, space: across === "epoch" ? 45 : 70, incrs: across === "epoch" ? counts : clock },
        { ...axis, size: 62, values: (_, ticks) => ticks.map((y) => (y == null ? "" : significant(y))) },
      ],
      series: [
        { label: across === "epoch" ? "epoch" : "after", value: (_, x) => (x == null ? "–" : across === "epoch" ? x : duration(x)) },
        ...lines.map((line) => ({
          label: line.label, stroke: line.stroke ?? ink(`--run-${line.run.colour}`), width: line.faint ? 1.25 : 2, spanGaps: true,
          dash: line.run.dashed || line.faint ? [6, 4] : undefined, points: { show: line.ys.length < 3 },
          paths: stepped ? uPlot.paths.stepped({ align: -1 }) : undefined,
          value: (_, y) => say(y),
        })),
      ],
      cursor: {
        sync: { key: "curves", setSeries: false }, drag: { x: true, y: false },
        y: false, hover: { skip: [null, undefined], prox: Infinity }, points: { size: 7 },
      },
      legend: { live: true, markers: { width: 0, fill: (u, index) => u.series[index].stroke(u, index) } },
      hooks: {
        ready: [rest], setCursor: [(u) => { if (u.cursor.left < 0) rest(u); }],
        setSelect: [(u) => { if (u.select.width > 0) unzoom.hidden = false; }],
      },
    }, data, box);
    plot.over.addEventListener("dblclick", () => { unzoom.hidden = true; });
    scrub(plot);
    drawn.push(plot);
    box.plot = plot;
  }

  // Without a cursor, the legend shows the last value of each line.
  function rest(u) {
    const idxs = u.data.map((ys) => ys.findLastIndex((y) => y != null)).map((idx) => (idx < 0 ? null : idx));
    u.setLegend({ idxs, idx: idxs[0] });
  }

  // Touch moves the cursor like the mouse.
  function scrub(plot) {
    plot.over.addEventListener("touchmove", (event) => {
      const { left, top } = plot.over.getBoundingClientRect();
      const touch = event.touches[0];
      plot.setCursor({ left: touch.clientX - left, top: touch.clientY - top });
    }, { passive: true });
  }

  // The IoU of each class for one run. A colour that the paper would hide is mixed with the ink.
  function drawClasses() {
    const parent = document.getElementById("class-curves");
    if (!parent) return;
    parent.replaceChildren();
    const number = Number(chosen("class-curves"));
    const lines = classes.names.map((name, index) => ({
      run: runs[number], label: name, stroke: readable(classes.colours[index]), ys: classes.runs[number].map((row) => row?.[index] ?? null),
    }));
    draw(parent, runs[number].label, lines, { kind: "score", wide: true });
  }

  function readable([r, g, b]) {
    const light = (0.299 * r + 0.587 * g + 0.114 * b) / 255;
    const hidden = dark.matches ? light < 0.25 : light > 0.8;
    return hidden ? (dark.matches ? `rgb(${[r, g, b].map((part) => Math.round(part * 0.5 + 115)).join(" ")})`
      : `rgb(${[r, g, b].map((part) => Math.round(part * 0.7)).join(" ")})`) : `rgb(${r} ${g} ${b})`;
  }

  function drawAll() {
    drawn.forEach((plot) => plot.destroy());
    drawn = [];
    unzoom.hidden = true;
    const [metrics, losses] = ["metric-charts", "loss-charts"].map((id) => document.getElementById(id));
    metrics.replaceChildren();
    losses.replaceChildren();
    charts.forEach((chart, number) => {
      const lines = runs.map((run) => ({ run, label: run.label, ys: run.values[chart.key] }));
      draw(metrics, chart.title, lines, { ...chart, wide: number === 0, stepped: chart.key === "learning_rate" });
    });
    drawClasses();
    if (shared_loss && runs.length > 1) {
      for (const [key, title] of [["val_loss", "Validation"], ["train_loss", "Training"]]) {
        const lines = runs.map((run) => ({ run, label: run.label, ys: run.values[key] }));
        draw(losses, title, lines, { kind: "number", log: true });
      }
      return;
    }
    for (const run of runs) {
      const lines = [
        { run, label: "validation", ys: run.values.val_loss },
        { run, label: "training", ys: run.values.train_loss, faint: true },
      ];
      draw(losses, run.loss ? `${run.label}: ${run.loss}` : run.label, lines, { kind: "number", log: true });
    }
  }

  document.querySelectorAll("#curves input").forEach((input) => input.addEventListener("change", drawAll));
  unzoom.addEventListener("click", drawAll);
  dark.addEventListener("change", drawAll);
  new ResizeObserver(() => {
    drawn.forEach((plot) => {
      const width = plot.root.parentElement.clientWidth;
      if (width !== plot.width) plot.setSize({ width, height: plot.height });
    });
  }).observe(document.getElementById("curves"));
  drawAll();
})();

// ---- tables: a click on a header sorts, best values first; unknown values stay last --------------------------------

for (const table of document.querySelectorAll("table.results")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const first = head.dataset.better === "higher" ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const order = head.ariaSort === first ? second : first;
    heads.forEach((other) => { other.ariaSort = "none"; });
    head.ariaSort = order;
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => row.cells[column].dataset.value;
    const compared = (a, b) => column === 0 ? a.localeCompare(b) : a - b;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === "" || right === "") return (left === "") - (right === "");
      return sign * compared(left, right);
    });
    table.tBodies[0].append(...rows);
  }));
}

// ---- gallery: filter the images, and enlarge one of them ------------------------------------------------------------------

const worstFirst = [...document.querySelectorAll(".case")];
for (const button of document.querySelectorAll("#kinds button")) {
  button.addEventListener("click", () => {
    const kind = button.dataset.kind;
    document.querySelectorAll("#kinds button").forEach((other) => { other.ariaPressed = String(other === button); });
    const cases = kind === "contested" ? worstFirst.toSorted((a, b) => b.dataset.split - a.dataset.split) : worstFirst;
    cases.forEach((item) => { item.hidden = kind !== "" && !item.dataset.kinds.split(" ").includes(kind); });
    document.querySelector(".cases").append(...cases);
  });
}

(() => {
  const viewer = document.getElementById("viewer");
  const [image, caption] = [viewer.querySelector("img"), viewer.querySelector("p")];
  let row = [];
  let at = 0;

  function show(number) {
    at = (number + row.length) % row.length;
    const picture = row[at].querySelector("img, canvas");
    image.src = picture.src ?? picture.toDataURL();
    image.alt = caption.textContent = row[at].dataset.caption;
  }

  document.addEventListener("click", (event) => {
    const thumb = event.target.closest(".thumb");
    if (!thumb) return;
    row = [...document.querySelectorAll(".thumb")].filter((other) => other.dataset.group === thumb.dataset.group);
    show(row.indexOf(thumb));
    viewer.showModal();
  });
  viewer.querySelectorAll("[data-step]").forEach((button) => button.addEventListener("click", () => show(at + Number(button.dataset.step))));
  viewer.querySelector("[data-close]").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { event.preventDefault(); show(at + step); }
  });
})();
