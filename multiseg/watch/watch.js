"use strict";

(() => {
  const live = document.body.dataset.live === "yes";
  const STATES = { waiting: 5, starting: 2, training: 0, validating: 1, finished: 6, stopped: 4, failed: 3, interrupted: 3 };
  const MOST_CURVES = 8; // that are drawn unless the reader chooses others
  const body = document.querySelector("#runs-table tbody");
  const details = document.getElementById("detail-list");
  const filter = document.getElementById("filter");
  const rows = new Map(); // id of a run -> its cells
  const chosen = new Map(); // id of a run -> whether its curves are drawn, as the reader chose
  let state = JSON.parse(document.getElementById("state-data").textContent);
  let positions = new Map(); // id of a run -> its position in the state, which changes when an earlier run is no longer watched
  let charts = null;
  let order = null; // { key, sign } of the column that the table is sorted by

  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const text = (node, value) => { if (node.textContent !== value) node.textContent = value; };
  const figure = (value) => (value == null ? "–" : value === 0 ? "0"
    : Math.abs(value) >= 1e-3 && Math.abs(value) < 1e6 ? String(+value.toPrecision(4)) : value.toExponential(2));
  const parts = (count, large, small) => `${Math.floor(count / 60)} ${large} ${String(count % 60).padStart(2, "0")} ${small}`;
  const duration = (seconds) => (seconds == null ? "–" : seconds < 99.5 ? `${Math.round(seconds)} s`
    : seconds < 3599.5 ? parts(Math.round(seconds), "min", "s") : parts(Math.round(seconds / 60), "h", "min"));

  // ---- the table -----------------------------------------------------------------------------------------------------

  function rowOf(run) {
    if (rows.has(run.id)) return rows.get(run.id);
    const tick = element("input", { type: "checkbox", title: "Draw the curves of this run" });
    tick.addEventListener("change", () => { chosen.set(run.id, tick.checked); draw(); });
    const cells = {
      tick, name: element("span", { className: "run" }), backend: element("small"), status: element("span", { className: "state" }),
      problem: element("p", { className: "problem" }), epoch: element("span"), bar: element("i", { className: "bar" }),
      loss: element("td"), score: element("td"), rate: element("td"), speed: element("td"), left: element("td"),
    };
    cells.row = element("tr", {},
      element("th", { scope: "row" }, element("div", { className: "name" }, tick, cells.name), cells.backend),
      element("td", {}, cells.status, cells.problem), element("td", {}, cells.epoch, cells.bar),
      cells.loss, cells.score, cells.rate, cells.speed, cells.left);
    if (live) {
      cells.asks = [["snapshot", "Snapshot"], ["stop", "Stop"]].map(([request, label]) => {
        const button = element("button", { type: "button", textContent: label });
        button.addEventListener("click", () => ask(run.id, request));
        return button;
      });
      cells.row.append(element("td", {}, element("div", { className: "ask" }, ...cells.asks)));
    }
    rows.set(run.id, cells);
    body.append(cells.row);
    return cells;
  }

  function showRow(run) {
    const cells = rowOf(run);
    cells.row.style.setProperty("--c", `var(--run-${positions.get(run.id) % 8})`);
    cells.tick.checked = isDrawn(run.id);
    cells.tick.setAttribute("aria-label", `curves of ${run.label}`);
    text(cells.name, run.label);
    cells.name.title = run.path;
    text(cells.backend, run.backend);
    text(cells.status, run.status);
    cells.status.dataset.status = run.status;
    text(cells.problem, run.problem);
    cells.problem.title = run.problem;
    text(cells.epoch, run.epochs ? `${figure(run.epoch ?? 0)} of ${run.epochs}` : "–");
    cells.bar.hidden = run.part == null;
    cells.bar.style.setProperty("--w", String(run.part ?? 0));
    text(cells.loss, figure(run.loss));
    text(cells.score, run.score ? `${run.score.title} ${run.score.text}` : "–");
    text(cells.rate, figure(run.rate));
    text(cells.speed, run.speed == null ? "–" : String(Math.round(run.speed)));
    text(cells.left, duration(run.left));
    cells.asks?.forEach((button) => { button.disabled = !run.asks; });
  }

  const isDrawn = (id) => chosen.get(id) ?? positions.get(id) < MOST_CURVES;

  function matching(run) {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const searched = `${run.label} ${run.backend} ${run.status}`.toLowerCase();
    return words.every((word) => searched.includes(word));
  }

  function showTable() {
    for (const [id, cells] of rows) {
      if (positions.has(id)) continue;
      cells.row.remove();
      rows.delete(id);
    }
    state.runs.forEach(showRow);
    state.runs.forEach((run) => { rows.get(run.id).row.hidden = !matching(run); });
    const value = { label: (run) => run.label, status: (run) => STATES[run.status], score: (run) => run.score?.value };
    if (order) {
      const read = value[order.key] ?? ((run) => run[order.key]);
      const sorted = [...state.runs].sort((a, b) => {
        const [left, right] = [read(a), read(b)];
        if (left == null || right == null) return (left == null) - (right == null);
        return order.sign * (typeof left === "string" ? left.localeCompare(right, undefined, { numeric: true }) : left - right);
      }).map((run) => rows.get(run.id).row);
      if (sorted.some((row, at) => body.children[at] !== row)) body.append(...sorted);
    }
    const shown = state.runs.filter(matching).length;
    text(document.getElementById("chosen"), shown < state.runs.length ? `${shown} of ${state.runs.length} runs` : "");
  }

  document.querySelectorAll("#runs-table thead th").forEach((head) => head.querySelector("button").addEventListener("click", () => {
    const sign = order?.key === head.dataset.key ? -order.sign : 1;
    order = { key: head.dataset.key, sign };
    document.querySelectorAll("#runs-table thead th").forEach((other) => { other.ariaSort = "none"; });
    head.ariaSort = sign > 0 ? "ascending" : "descending";
    showTable();
  }));
  filter.addEventListener("input", () => { showTable(); draw(); });

  // ---- headline ------------------------------------------------------------------------------------------------------

  function showHeadline() {
    const counts = {};
    for (const run of state.runs) counts[run.status] = (counts[run.status] ?? 0) + 1;
    const parts = Object.keys(STATES).filter((status) => counts[status]).map((status) => `${counts[status]} ${status}`);
    const title = `${state.runs.length} run${state.runs.length === 1 ? "" : "s"}: ${parts.join(", ")}`;
    text(document.getElementById("headline"), title);
    document.title = `${title} – multiseg watch`;
    const ended = state.runs.length && !state.active;
    text(document.getElementById("left"), state.left == null ? (ended ? "All trainings have ended." : "") : `About ${duration(state.left)} left.`);
  }

  // ---- curves --------------------------------------------------------------------------------------------------------

  const grouping = document.getElementById("group");
  grouping.addEventListener("change", () => draw());

  // The drawn runs by what they have in common but the seed, in the order of the table.
  function groups() {
    const byKey = new Map();
    for (const run of state.runs.filter((one) => one.group && matching(one))) {
      byKey.set(run.group, [...(byKey.get(run.group) ?? []), run.id]);
    }
    return [...byKey.values()];
  }

  // One run in place of several: the mean of their values after each epoch, and the lowest and the highest.
  function mean(ids) {
    const members = ids.map((id) => state.curves.runs[positions.get(id)]);
    if (members.length === 1) return members[0];
    const epoch = [...new Set(members.flatMap((run) => run.epoch))].sort((a, b) => a - b);
    const places = members.map((run) => new Map(run.epoch.map((value, at) => [value, at])));
    const over = (values, combine) => epoch.map((at) => {
      const present = members.map((run, index) => values(run)[places[index].get(at)]).filter((value) => value != null);
      return present.length ? combine(present) : null;
    });
    const average = (present) => present.reduce((sum, value) => sum + value, 0) / present.length;
    const keys = [...new Set(members.flatMap((run) => Object.keys(run.values)))];
    const each = (combine) => Object.fromEntries(keys.map((key) => [key, over((run) => run.values[key] ?? [], combine)]));
    return { ...members[0], label: `${common(members.map((run) => run.label))} (mean of ${members.length} seeds)`, epoch,
      seconds: over((run) => run.seconds, average), values: each(average),
      low: each((present) => Math.min(...present)), high: each((present) => Math.max(...present)) };
  }

  // The beginning that names have in common, without a number or a separator at its end.
  function common(names) {
    let length = names[0].length;
    while (!names.every((name) => name.startsWith(names[0].slice(0, length)))) length -= 1;
    return names[0].slice(0, length).replace(/[\s_./=-]*(seed|s)?[\s_./=-]*\d*$/i, "") || names[0];
  }

  function drawn() {
    const keep = state.runs.filter((run) => isDrawn(run.id) && matching(run)).map((run) => run.id);
    const { runs, charts: all, classes, shared_loss } = state.curves;
    const together = groups();
    grouping.parentElement.parentElement.hidden = together.every((ids) => ids.length < 2);
    if (grouping.checked && !grouping.parentElement.parentElement.hidden) {
      return { runs: together.slice(0, MOST_CURVES).map(mean).map((run, at) => ({ ...run, colour: at, dashed: false })), shared_loss, charts: all, classes: null };
    }
    const some = keep.map((id) => runs[positions.get(id)]);
    return {
      runs: some, shared_loss, charts: all.filter((chart) => some.some((run) => run.values[chart.key])),
      classes: classes && { ...classes, runs: some.map((run) => run.classes) },
    };
  }

  function draw() {
    const data = drawn();
    const withClasses = [...data.runs.keys()].filter((at) => data.classes?.runs[at].some(Boolean));
    const hasClasses = withClasses.length > 0;
    if (!hasClasses) data.classes = null;
    document.getElementById("classes-of-run").hidden = !hasClasses;
    const box = document.getElementById("class-curve-runs");
    const labels = JSON.stringify(withClasses.map((at) => [at, data.runs[at].label]));
    if (hasClasses && box.dataset.labels !== labels) {
      box.dataset.labels = labels;
      box.replaceChildren(element("fieldset", {}, element("legend", { textContent: "Run" }), ...withClasses.map((at, index) => {
        const input = element("input", { type: "radio", name: "class-curves", value: String(at), checked: index === 0 });
        input.addEventListener("change", () => charts.redraw());
        return element("label", {}, input, ` ${data.runs[at].label}`);
      })));
    }
    if (charts) charts.update(data);
    else charts = curveCharts(data);
  }

  // ---- pictures and logs: filled when they are open ---------------------------------------------------------------------

  function showDetails() {
    for (const box of [...details.children]) if (!positions.has(box.dataset.run)) box.remove();
    for (const run of state.runs) {
      let box = details.querySelector(`[data-run="${run.id}"]`);
      if (!box) {
        box = element("details", { open: positions.get(run.id) < 3 }, element("summary"), element("div", { className: "triples" }), element("pre", { className: "log" }));
        box.dataset.run = run.id;
        box.addEventListener("toggle", () => fill(box, state.runs[positions.get(run.id)]));
        details.append(box);
      }
      text(box.querySelector("summary"), run.label);
      box.hidden = !matching(run);
      fill(box, run);
    }
  }

  function fill(box, run) {
    if (!box.open || !run) return; // of a run that is no longer watched, the event of its box may come later
    const log = box.querySelector("pre");
    text(log, run.log.join("\n"));
    log.hidden = !run.log.length;
    const triples = box.querySelector(".triples");
    const { stamp } = run.pictures;
    const stored = live ? null : state.pictures[run.id];
    const count = live || stored ? run.pictures.count : 0;
    if (triples.dataset.stamp === stamp) return;
    triples.dataset.stamp = stamp;
    const source = (name) => (live ? `pictures/${run.id}/${name}?${stamp}` : state.images[stored[name]] ?? "data:,");
    if (triples.children.length === count) { // inputs and targets stay; the old output is shown until the new one is loaded
      triples.querySelectorAll("img[title=output]").forEach((image, at) => { image.src = source(`${at}-output.png`); });
      return;
    }
    triples.replaceChildren(...Array.from({ length: count }, (_, at) => element("figure", {},
      element("div", {}, ...["input", "target", "output"].map((kind) => element("img", { src: source(`${at}-${kind}.png`), alt: `Image ${at}: ${kind}`, title: kind }))),
      element("figcaption", { textContent: `image ${at}: input, target, output` }))));
  }

  // ---- requests ------------------------------------------------------------------------------------------------------

  async function ask(id, request) {
    const answer = document.getElementById("answer");
    const { label } = state.runs[positions.get(id)];
    try {
      const response = await fetch("request", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ run: id, request }),
      });
      const { error } = await response.json();
      text(answer, error ?? (request === "stop" ? `${label} will stop after its current step, with a snapshot.` : `${label} will write a snapshot after its current step.`));
    } catch (error) {
      text(answer, `${label}: the server does not answer (${error.message})`);
    }
    answer.hidden = false;
  }

  // ---- updates ---------------------------------------------------------------------------------------------------------

  function show(parts) {
    positions = new Map(state.runs.map((run, at) => [run.id, at]));
    showTable();
    showHeadline();
    if (parts.curves) draw();
    showDetails();
  }

  show({ curves: true });
  if (!live) return;
  const connection = document.getElementById("connection");
  const events = new EventSource("events");
  events.addEventListener("open", () => text(connection, "live"));
  events.addEventListener("error", () => text(connection, "the server has ended or cannot be reached; trying again"));
  events.addEventListener("state", (event) => {
    const { runs, drawn: curves, curves: common, all } = JSON.parse(event.data);
    Object.assign(state, all);
    Object.assign(state.runs, runs).length = state.count;
    Object.assign(state.curves, common);
    Object.assign(state.curves.runs, curves).length = state.count;
    show({ curves: Boolean(curves || common) });
  });
})();
