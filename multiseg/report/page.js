"use strict";

curveCharts(JSON.parse(document.getElementById("curves-data").textContent));

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
