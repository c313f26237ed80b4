// The grid: one row per task, one cell per episode, coloured and marked by outcome; and which of them the filter shows.
"use strict";

Review.outcomes = { s: "success", f: "failure", e: "error" };

Review.make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

Review.percent = (rate) => rate === null ? "–" : `${(100 * rate).toFixed(1)} %`;

Review.Grid = class {
  // place: the element to fill; onChoose(id): an episode was chosen.
  constructor(place, onChoose) {
    this.place = place;
    this.cells = new Map();
    this.order = [];
    this.shown = [];
    this.chosen = "";
    place.addEventListener("click", (event) => {
      const cell = event.target.closest("button.cell");
      if (cell) onChoose(cell.dataset.id);
    });
  }

  // runs: one or two; the first one's tasks make the rows, then those only the second has.
  draw(runs) {
    const { make } = Review;
    this.runs = runs;
    this.records = runs.map((run) => new Map(run.episodes.map((episode) => [episode.id, episode])));
    const tasks = new Map();
    for (const run of runs) for (const task of run.tasks) if (!tasks.has(task.key)) tasks.set(task.key, task);
    const ids = new Map();
    for (const id of [...new Set(runs.flatMap((run) => run.episodes.map((e) => e.id)))].sort()) {
      const key = id.split("/").slice(0, 2).join("/");
      if (!ids.has(key)) ids.set(key, []);
      ids.get(key).push(id);
    }
    this.tasks = tasks;
    this.order = [];
    this.cells.clear();
    const fragment = document.createDocumentFragment();
    for (const suite of new Set([...tasks.values()].map((task) => task.suite))) {
      const rates = runs.map((run) => this.rate(run.suites.find((row) => row.suite === suite))).join("  ·  ");
      const table = make("div", { className: "suite" }, make("h2", {}, suite, make("span", { className: "rate" }, rates)));
      for (const task of [...tasks.values()].filter((t) => t.suite === suite)) {
        const row = make("div", { className: "row" });
        row.dataset.key = task.key;
        const label = make("span", { className: "task", title: task.prompt || task.name });
        label.append(make("span", { className: "index" }, `${task.index}`), task.prompt || task.name || "not run");
        const cells = make("span", { className: "cells" });
        const known = ids.get(task.key) || [];
        for (const id of known) cells.append(this.cell(id, task));
        for (let i = known.length; i < task.planned; i += 1) {
          cells.append(make("span", { className: "cell missing", title: "no result yet" }));
        }
        row.append(label, cells, make("span", { className: "rate" }, runs.map((run) => this.short(run, task.key)).join(" · ")));
        table.append(row);
      }
      fragment.append(table);
    }
    const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.id : "";
    this.place.replaceChildren(fragment);
    this.mark(this.chosen);
    if (focused && this.cells.has(focused)) this.cells.get(focused).focus({ preventScroll: true });
  }

  rate(row) {
    if (!row) return "not run";
    const interval = row.low === null ? "" : ` (${(100 * row.low).toFixed(1)} – ${(100 * row.high).toFixed(1)})`;
    const rate = `${Review.percent(row.rate)}${interval}`;
    if (row.isMean) return `${rate}, mean of its tasks; ${row.successes} of ${row.finished}`;
    return `${row.successes}/${row.finished} = ${rate}`;
  }

  short(run, key) {
    const task = run.tasks.find((t) => t.key === key);
    return task ? `${task.successes}/${task.finished}` : "–";
  }

  cell(id, task) {
    const found = this.records.map((records) => records.get(id));
    const letters = found.map((record) => record ? record.o : "m");
    const said = letters.map((letter) => Review.outcomes[letter] || "no result");
    const cell = Review.make("button", { type: "button", tabIndex: -1, className: `cell ${letters[0]}` });
    if (letters.length > 1) {
      cell.classList.add("two", `b-${letters[1]}`);
      if (letters[0] !== "s" || letters[1] !== "s") cell.dataset.marks = letters.map((letter) => ({ s: "✓", f: "×", e: "!", m: "·" }[letter])).join("");
    }
    cell.dataset.id = id;
    const words = said.length > 1 ? `${this.runs[0].name} ${said[0]}, ${this.runs[1].name} ${said[1]}` : said[0];
    cell.setAttribute("aria-label", `task ${task.index}, init ${id.split("/")[2]}: ${words}`);
    cell.title = `${id}: ${words}`;
    this.cells.set(id, cell);
    this.order.push(id);
    return cell;
  }

  // keep(id): whether the filter shows the episode.
  filter(keep) {
    this.shown = this.order.filter(keep);
    const shown = new Set(this.shown);
    for (const [id, cell] of this.cells) {
      cell.classList.toggle("off", !shown.has(id));
      cell.disabled = !shown.has(id);
    }
    const keys = new Set(this.shown.map((id) => id.split("/").slice(0, 2).join("/")));
    const all = this.shown.length === this.order.length;
    for (const row of this.place.querySelectorAll(".row")) row.hidden = !all && !keys.has(row.dataset.key);
    this.mark(this.chosen);
  }

  mark(id) {
    const before = this.cells.get(this.chosen);
    if (before) before.removeAttribute("aria-current");
    this.chosen = id;
    const cell = this.cells.get(id);
    const way = cell && !cell.disabled ? cell : this.cells.get(this.shown[0]);
    for (const other of this.place.querySelectorAll('button.cell[tabindex="0"]')) other.tabIndex = -1;
    if (way) way.tabIndex = 0;
    if (cell) cell.setAttribute("aria-current", "true");
  }

  // The id `by` places on among those shown.
  step(by) {
    const place = this.shown.indexOf(this.chosen);
    if (place < 0) return this.shown[by > 0 ? 0 : this.shown.length - 1];
    return this.shown[Math.min(Math.max(place + by, 0), this.shown.length - 1)];
  }
};
