"use strict";

// ---- charts: one uPlot for each metric over all runs, one for each run's own loss -----------------------------------

// data: runs (columns of numbers by epoch), charts, classes, shared_loss. update() replaces it and keeps axes and zoom.
function curveCharts(data) {
  const root = document.documentElement;
  const unzoom = document.getElementById("unzoom");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let drawn = [];

  const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
  const ink = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const significant = (value, digits = 4) => value === 0 ? "0"
    : Math.abs(value) >= 1e-3 && Math.abs(value) < 1e6 ? String(+value.toPrecision(digits))
      : value.toExponential(digits - 2).replace(/\.?0+e/, "e");
  // Numbers at an axis, with as many digits as make them different.
  const told = (ticks) => {
    const known = ticks.filter((y) => y != null);
    const digits = [4, 5, 6, 8, 10].find((count) => new Set(known.map((y) => significant(y, count))).size === known.length);
    return ticks.map((y) => (y == null ? "" : significant(y, digits)));
  };
  const written = { score: (value) => value.toFixed(3), number: (value) => significant(value) };
  const duration = (seconds) => seconds < 99.5 ? `${+seconds.toFixed(1)} s`
    : seconds < 3599.5 ? `${Math.floor(Math.round(seconds) / 60)} min ${String(Math.round(seconds) % 60).padStart(2, "0")} s`
    : `${(seconds / 3600).toFixed(2)} h`;
  const counts = [1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000];
  const clock = [0.01, 0.1, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 18000, 36000, 86400];
  const ticked = (seconds) => seconds % 60 ? duration(seconds)
    : seconds % 3600 ? `${seconds / 60} min` : seconds ? `${seconds / 3600} h` : "0";

  // The values of a run; those of a column that is left out are all missing.
  const column = (run, key) => run.values[key] ?? run.epoch.map(() => null);

  // Lines have different x values if x is time, so each line is a table, and uPlot joins the tables.
  function draw(parent, title, current, { kind, log, wide, stepped }) {
    const across = chosen("x");
    current = ranged(current);
    const lines = current();
    const logarithmic = log && chosen("y") === "log";
    const box = document.createElement("div");
    box.className = wide ? "chart wide" : "chart";
    box.innerHTML = "<h4></h4>";
    box.firstChild.textContent = box.firstChild.title = title;
    parent.append(box);

    const joined = (some) => {
      const tables = some.map((line) => [line.run[across], logarithmic ? line.ys.map((y) => (y > 0 ? y : null)) : line.ys]);
      return tables.length ? uPlot.join(tables) : [[], []];
    };
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
        { ...axis, size: 62, values: (_, ticks) => told(ticks) },
      ],
      series: [
        { label: across === "epoch" ? "epoch" : "after", value: (_, x) => (x == null ? "–" : across === "epoch" ? x : duration(x)) },
        ...lines.map((line) => ({
          label: line.label, stroke: line.stroke ?? ink(`--run-${line.run.colour}`), width: line.faint ? 1.25 : 2, spanGaps: true,
          dash: line.run.dashed || line.faint ? [6, 4] : undefined, points: { show: line.ys.length < 3 },
          paths: stepped ? uPlot.paths.stepped({ align: -1 }) : undefined,
          value: (_, y) => say(y),
          ...(line.edge ? { width: 0, points: { show: false }, class: "edge" } : {}),
        })),
      ],
      // the lowest and the highest values of several runs follow their mean
      bands: lines.flatMap((line, at) => (line.edge === "high" ? [{ series: [at + 1, at], fill: faded(ink(`--run-${line.run.colour}`)) }] : [])),
      cursor: {
        sync: { key: "curves", setSeries: false }, drag: { x: true, y: false },
        y: false, hover: { skip: [null, undefined], prox: Infinity }, points: { size: 7 },
      },
      legend: { live: true, markers: { width: 0, fill: (u, index) => u.series[index].stroke(u, index) } },
      hooks: {
        ready: [rest], setCursor: [(u) => { if (u.cursor.left < 0) rest(u); }],
        setSelect: [(u) => { if (u.select.width > 0) unzoom.hidden = false; }],
      },
    }, joined(lines), box);
    plot.over.addEventListener("dblclick", () => { unzoom.hidden = true; });
    scrub(plot);
    plot.refresh = () => {
      plot.setData(joined(current()), unzoom.hidden);
      if (!unzoom.hidden) plot.redraw();
      if (!(plot.cursor.left >= 0)) rest(plot);
    };
    drawn.push(plot);
    box.plot = plot;
  }

  const faded = (colour) => (/^#[0-9a-f]{6}$/i.test(colour) ? `${colour}30` : "transparent");

  // The lines of a chart, and for a mean of several runs those of the lowest and the highest value.
  function ranged(current) {
    return () => current().flatMap((line) => (!line.run.low || !line.key ? [line]
      : [line, ...["low", "high"].map((edge) => ({ ...line, edge, ys: line.run[edge][line.key] }))]));
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
    if (!parent || !data.classes) return;
    parent.replaceChildren();
    const number = Number(chosen("class-curves"));
    const lines = () => data.classes.names.map((name, index) => ({
      run: data.runs[number], label: name, stroke: readable(data.classes.colours[index]),
      ys: data.classes.runs[number].map((row) => row?.[index] ?? null),
    }));
    draw(parent, data.runs[number].label, lines, { kind: "score", wide: true });
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
    data.charts.forEach((chart, number) => {
      const lines = () => data.runs.map((run) => ({ run, label: run.label, key: chart.key, ys: column(run, chart.key) }));
      draw(metrics, chart.title, lines, { ...chart, wide: number === 0, stepped: chart.key === "learning_rate" });
    });
    drawClasses();
    if (data.shared_loss && data.runs.length > 1) {
      for (const [key, title] of [["val_loss", "Validation"], ["train_loss", "Training"]]) {
        const lines = () => data.runs.map((run) => ({ run, label: run.label, key, ys: column(run, key) }));
        draw(losses, title, lines, { kind: "number", log: true });
      }
      return;
    }
    for (const [number, run] of data.runs.entries()) {
      const lines = () => [
        { run: data.runs[number], label: "validation", key: "val_loss", ys: column(data.runs[number], "val_loss") },
        { run: data.runs[number], label: "training", ys: column(data.runs[number], "train_loss"), faint: true },
      ];
      draw(losses, run.loss ? `\u2068${run.label}\u2069: ${run.loss}` : run.label, lines, { kind: "number", log: true });
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

  const shape = ({ runs, charts, classes, shared_loss }) =>
    JSON.stringify([runs.map((run) => [run.label, run.loss]), charts.map((chart) => chart.key), classes?.names, shared_loss]);

  return {
    redraw: drawAll,
    update(next) {
      const same = shape(data) === shape(next);
      data = next;
      if (same) return drawn.forEach((plot) => plot.refresh());
      const zoomed = !unzoom.hidden && drawn.length ? { ...drawn[0].scales.x } : null;
      drawAll();
      if (!zoomed) return undefined;
      unzoom.hidden = false;
      return drawn.forEach((plot) => plot.setScale("x", { min: zoomed.min, max: zoomed.max }));
    },
  };
}
