// Shows the details of the box that is chosen in a drawing: by a click, by Enter, or by the buttons for the next difference.
"use strict";
for (const graph of document.querySelectorAll(".graph")) {
  const boxes = [...graph.querySelectorAll(".graph-drawing svg a")];
  const details = [...graph.querySelectorAll(".graph-detail")];
  const id = box => box.getAttribute("href").slice(1);
  const holds = (detail, name) => detail.id === name || (detail.dataset.layers || "").split(" ").includes(name);

  function choose(name, scroll) {
    const detail = details.find(each => holds(each, name));
    if (!detail) return null;
    for (const each of details) each.classList.toggle("chosen", each === detail);
    for (const box of boxes) {
      const chosen = holds(detail, id(box));
      box.classList.toggle("chosen", chosen);
      if (chosen) box.setAttribute("aria-current", "true"); else box.removeAttribute("aria-current");
      if (chosen && scroll) box.scrollIntoView({ block: "center", inline: "center" });
    }
    return detail;
  }

  function follow(name, scroll) {
    const detail = choose(name, scroll);
    if (!detail) return;
    try { history.replaceState(null, "", "#" + detail.id); } catch { /* a page within a frame has no address */ }
  }

  graph.classList.add("live");
  document.addEventListener("click", event => {
    const link = event.target.closest("a[href^='#']");
    if (!link || !details.some(each => holds(each, id(link)))) return;
    event.preventDefault();
    follow(id(link), !graph.querySelector(".graph-drawing").contains(link));
  });
  for (const button of graph.querySelectorAll("button[data-step]")) {
    button.addEventListener("click", () => {
      const notable = details.filter(each => "notable" in each.dataset);
      const order = notable.length ? notable : details;
      const at = order.findIndex(each => each.classList.contains("chosen"));
      const step = Number(button.dataset.step);
      const next = at < 0 ? (step > 0 ? 0 : order.length - 1) : (at + step + order.length) % order.length;
      follow(order[next].id, true);
    });
  }
  const first = details.find(each => "notable" in each.dataset) || details[0];
  const wanted = decodeURIComponent(location.hash.slice(1));
  if (wanted && details.some(each => holds(each, wanted))) choose(wanted, true);
  else if (first) choose(first.id, false);  // without an address: the browser would scroll to it
}
