"use strict";
// Comfort only: folding, searching, keys. Without it the page says the same.
(function () {
  const table = document.getElementById("lines");
  if (!table) return;
  const lines = Array.from(table.tBodies[0].rows);
  const depth = (line) => Number(line.dataset.depth);
  const link = (line) => line.querySelector("th a");
  const folded = new Set();
  let wanted = "", onlyFailed = false;

  // Where each line stands, worked out once: what is around it, and whether anything is inside.
  const around = new Map(), inside = new Map(), above = [];
  lines.forEach((line, at) => {
    above.length = depth(line);
    around.set(line, above.filter(Boolean));
    above[depth(line)] = line;
    inside.set(line, at + 1 < lines.length && depth(lines[at + 1]) > depth(line));
  });

  function show() {
    const found = new Set();
    const searching = wanted !== "" || onlyFailed;
    if (searching) {
      for (const line of lines) {
        const fits = (!onlyFailed || line.classList.contains("failed")) && line.cells[0].textContent.toLowerCase().includes(wanted);
        if (fits) { found.add(line); around.get(line).forEach((each) => found.add(each)); }
      }
    }
    for (const line of lines) {
      line.hidden = searching ? !found.has(line) : around.get(line).some((each) => folded.has(each));
    }
  }

  function fold(line, on) {
    if (!inside.get(line)) return;
    if (on) folded.add(line); else folded.delete(line);
    const button = line.querySelector(".fold");
    button.textContent = on ? "▸" : "▾";
    button.setAttribute("aria-expanded", String(!on));
    show();
  }

  for (const line of lines) {
    if (inside.get(line)) {
      const button = document.createElement("button");
      button.className = "fold";
      button.type = "button";
      button.tabIndex = -1;
      button.textContent = "▾";
      button.setAttribute("aria-expanded", "true");
      button.setAttribute("aria-label", "fold what is inside");
      button.addEventListener("click", () => fold(line, !folded.has(line)));
      line.cells[0].prepend(button);
    }
    line.cells[1].addEventListener("click", () => { location.hash = link(line).getAttribute("href"); });
  }

  // Arrow keys walk through the lines; left and right fold.
  table.addEventListener("keydown", (event) => {
    const line = event.target.closest("tbody tr");
    if (!line || event.target.tagName !== "A") return;
    const seen = lines.filter((each) => !each.hidden);
    const at = seen.indexOf(line);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && seen[at + step]) link(seen[at + step]).focus();
    else if (event.key === "ArrowLeft") fold(line, true);
    else if (event.key === "ArrowRight") fold(line, false);
    else return;
    event.preventDefault();
  });

  document.addEventListener("keydown", (event) => {
    const open = document.querySelector(".facts:target");
    if (event.key === "Escape" && open) {
      const back = document.getElementById("r-" + open.id);
      history.replaceState(null, "", "#");
      location.hash = "r-" + open.id;
      if (back) link(back).focus({ preventScroll: true });
    }
  });

  const tools = document.createElement("div");
  tools.className = "tools";
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "find a line";
  search.setAttribute("aria-label", "find a line");
  search.addEventListener("input", () => { wanted = search.value.toLowerCase(); show(); });
  const add = (words, act) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = words;
    button.addEventListener("click", () => act(button));
    tools.append(button);
  };
  tools.append(search);
  if (lines.some((line) => line.classList.contains("failed"))) {
    add("only what failed", (button) => {
      onlyFailed = !onlyFailed;
      button.setAttribute("aria-pressed", String(onlyFailed));
      button.textContent = onlyFailed ? "all lines" : "only what failed";
      show();
    });
  }
  add("fold all", () => lines.forEach((line) => { if (inside.get(line) && depth(line) > 0) folded.add(line); }) || refold());
  add("unfold all", () => { folded.clear(); refold(); });
  function refold() {
    for (const line of lines) {
      const button = line.querySelector(".fold");
      if (!button) continue;
      button.textContent = folded.has(line) ? "▸" : "▾";
      button.setAttribute("aria-expanded", String(!folded.has(line)));
    }
    show();
  }
  table.before(tools);
})();
