// Sorting of tables, sliders over frames, and a page that prints whole. Nothing is loaded from elsewhere.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => { const text = row.cells[column].textContent.trim(); const n = parseFloat(text); return isNaN(n) ? text : n; };
      const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      [...body.rows].sort((a, b) => (down ? -1 : 1) * order(key(a), key(b))).forEach(row => body.append(row));
    });
  });
}
for (const range of document.querySelectorAll(".movers input[type=range]")) {
  range.addEventListener("input", () => {
    const panel = range.closest("[data-layer]");
    for (const other of panel.querySelectorAll("input[type=range]")) if (other !== range) other.value = other.max / 2;
    for (const strip of panel.querySelectorAll(".frame img")) strip.hidden = strip.dataset.slider !== range.dataset.slider;
    const shown = panel.querySelector(".frame img:not([hidden])");
    shown.style.objectPosition = `${100 * range.value / range.max}% 0`;
  });
}
for (const choice of document.querySelectorAll(".faces input")) {
  choice.addEventListener("change", () => {
    for (const face of choice.closest("section").querySelectorAll(".movers")) face.hidden = face.dataset.face !== choice.value;
  });
}
const openTarget = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const fold = target && (target.matches("details") ? target : target.querySelector("details"));
  if (fold) fold.open = true;
};
addEventListener("hashchange", openTarget);
openTarget();
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  document.documentElement.classList.add("static");
});
addEventListener("afterprint", () => document.documentElement.classList.remove("static"));
