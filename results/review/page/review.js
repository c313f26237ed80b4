// The page: filters, the chosen episode, tags and notes, keys; and what is new in a run that is still going on.
"use strict";

(async () => {
  const { make, source } = Review;
  const find = (id) => document.getElementById(id);
  const POLL_MS = 2500;
  const names = await source.runs();
  let runs = [];
  let chosen = "";
  let courses = [];
  let saving = Promise.resolve();
  let edits = 0; // tags and notes made here: a run read meanwhile does not know them
  const unsaved = new Map(); // id → review that the server has not confirmed
  const grid = new Review.Grid(find("grid"), choose);
  const plots = new Review.Plots(find("plots"), (step) => player.seek(step));
  const player = new Review.Player(find("videos"), moment);

  function moment(step) {
    const at = Math.min(step, Number(find("scrub").max));
    find("scrub").value = at;
    find("clock").textContent = `${(at / player.hz).toFixed(2)} s, step ${at}`;
    find("play").textContent = player.playing ? "Pause" : "Play";
    plots.at(at);
    const lines = courses.map((course, number) => {
      const values = plots.values(course, at);
      return values && runs.length > 1 ? `${runs[number].name} (${number ? "dashed" : "solid"}): ${values}` : values;
    });
    find("values").textContent = lines.filter(Boolean).join("\n");
  }

  const reviews = (id) => runs[0].reviews[id] || { tags: [], note: "" };

  function filter() {
    const [text, outcome, task, tag] = ["f-text", "f-outcome", "f-task", "f-tag"].map((id) => find(id).value);
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    grid.filter((id) => {
      const key = id.split("/").slice(0, 2).join("/");
      const letters = grid.records.map((records) => (records.get(id) || { o: "m" }).o);
      const said = reviews(id);
      const known = grid.tasks.get(key);
      const all = `${id} ${known ? `${known.name} ${known.prompt}` : ""} ${said.note} ${said.tags.join(" ")}`.toLowerCase();
      return (!outcome || letters.includes(outcome)) && (!task || key === task)
        && (!tag || (tag === "none" ? !said.tags.length : said.tags.includes(tag)))
        && (!find("f-flipped").checked || letters[0] !== letters[1])
        && words.every((word) => all.includes(word));
    });
    const tagged = Object.keys(runs[0].reviews).length;
    find("count").textContent = `${grid.shown.length} of ${grid.order.length} episodes${tagged ? `, ${tagged} with tags or notes` : ""}`;
  }

  async function choose(id) {
    if (!id) return;
    saveNote();
    chosen = id;
    grid.mark(id);
    const cell = grid.cells.get(id);
    if (cell) cell.scrollIntoView({ block: "nearest" });
    history.replaceState(null, "", `#${encodeURIComponent(id)}`);
    const key = id.split("/").slice(0, 2).join("/");
    const task = grid.tasks.get(key);
    find("episode-title").textContent = id;
    find("prompt").textContent = task ? task.prompt || task.name : "";
    showVideos();
    showReview();
    if (!unsaved.size) find("saved").textContent = "";
    find("error").hidden = true;
    const own = grid.records[0].has(id) && !source.exported;
    find("tags").disabled = !own;
    find("note").readOnly = !own;
    plots.show([]);
    courses = [];
    const found = await Promise.all(runs.map((run, number) => grid.records[number].has(id)
      ? source.episode(number, id).catch((error) => ({ failed: error.message })) : null));
    if (chosen !== id) return;
    courses = found.map((course) => course && !course.failed ? course : null);
    const errors = found.filter(Boolean).map((course) => course.failed || course.error).filter(Boolean);
    find("error").textContent = errors.join("\n");
    find("error").hidden = !errors.length;
    find("scrub").max = Math.max(1, ...courses.filter(Boolean).map((course) => course.steps));
    plots.show(courses);
    moment(player.step);
  }

  function showVideos() {
    const view = find("as-policy").checked ? "policy" : "true";
    player.show(runs.map((run, number) => ({ run: number, name: run.name, sees: run.hasPolicyView, record: grid.records[number].get(chosen) })), view);
    find("play").textContent = "Play";
  }

  function showReview() {
    const said = reviews(chosen);
    for (const box of find("tags").querySelectorAll("input")) box.checked = said.tags.includes(box.value);
    find("note").value = said.note;
  }

  function save(id, tags, note) {
    edits += 1;
    runs[0].reviews[id] = { tags, note };
    if (!tags.length && !note) delete runs[0].reviews[id];
    unsaved.set(id, { tags, note });
    find("saved").textContent = "Saving…";
    saving = saving.then(sendUnsaved);
    filter();
  }

  // What failed is tried again with the next, and every few seconds.
  async function sendUnsaved() {
    for (const [id, said] of [...unsaved]) {
      try {
        await source.review(0, id, said.tags, said.note);
        if (unsaved.get(id) === said) unsaved.delete(id);
      } catch (error) {
        find("saved").textContent = `Not saved yet (${unsaved.size} episodes): ${error.message}`;
        return;
      }
    }
    if (!unsaved.size) find("saved").textContent = "Saved.";
  }

  function saveTags() {
    const tags = [...find("tags").querySelectorAll("input:checked")].map((box) => box.value);
    save(chosen, tags, find("note").value);
  }

  function saveNote() {
    if (!find("note").readOnly && chosen && find("note").value !== reviews(chosen).note) save(chosen, reviews(chosen).tags, find("note").value);
  }

  // Said once, however often it is found.
  function warn(lines) {
    if (lines.join("\n") === [...find("warnings").children].map((line) => line.textContent).join("\n")) return;
    find("warnings").replaceChildren(...lines.map((line) => make("p", {}, line)));
  }

  function drawRuns() {
    const [first] = runs;
    player.hz = first.hz;
    find("title").textContent = names.join(" and ");
    document.title = `${names.join(" and ")} · vla-review`;
    find("live").hidden = !runs.some((run) => run.running);
    warn(runs.flatMap((run) => run.warnings.map((text) => `${run.name}: ${text}`)));
    find("about-rows").replaceChildren(...runs.map((run) => make("dl", {}, ...run.about.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]))));
    find("policy-view").hidden = !runs.some((run) => run.hasPolicyView);
    grid.draw(runs);
    filter();
    if (runs.length > 1) {
      source.comparison().then((lines) => {
        find("comparison").replaceChildren(...lines.map((line) => make("p", {}, line)));
        find("comparison").hidden = false;
      }, (error) => find("comparison").replaceChildren(make("p", {}, error.message)));
    }
  }

  function drawChoices() {
    for (const task of grid.tasks.values()) find("f-task").append(make("option", { value: task.key }, `${task.suite} ${task.index}: ${task.prompt || task.name}`));
    runs[0].tags.forEach((tag, i) => {
      find("f-tag").append(make("option", { value: tag }, tag));
      const box = make("input", { type: "checkbox", value: tag });
      box.setAttribute("aria-keyshortcuts", `${i + 1}`);
      find("tags").append(make("label", {}, box, make("kbd", {}, `${i + 1}`), ` ${tag}`));
    });
    find("flipped").hidden = runs.length < 2;
    if (runs.length > 1) find("tags").querySelector("legend").textContent = `Why it failed (${runs[0].name})`;
  }

  async function refresh() {
    try {
      if (unsaved.size) await (saving = saving.then(sendUnsaved));
      for (let number = 0; number < runs.length; number += 1) await refreshRun(number);
      if (silent) drawRuns();
      silent = false;
    } catch (error) {
      silent = true;
      warn([`The server does not answer: ${error.message}`]);
    }
    setTimeout(refresh, POLL_MS);
  }

  async function refreshRun(number) {
    const old = runs[number];
    if (await source.version(number) === old.version && !old.running) return;
    await saving;
    const before = edits;
    const now = await source.run(number);
    if (edits !== before || unsaved.size) return; // it is older than what was said here; the next time
    if (now.version === old.version && now.running === old.running) return;
    const wanted = now.episodes.some((episode) => episode.id === chosen), had = grid.records[number].has(chosen);
    runs[number] = now;
    if (JSON.stringify([now.episodes, now.tasks, now.running, now.warnings]) === JSON.stringify([old.episodes, old.tasks, old.running, old.warnings])) filter();
    else drawRuns();
    if (!chosen) choose(grid.shown[0]);
    else if (wanted && !had) choose(chosen);
    else if (document.activeElement !== find("note")) showReview();
  }

  let silent = false;
  const keys = {
    j: () => choose(grid.step(1)), k: () => choose(grid.step(-1)), " ": () => player.toggle(),
    ArrowLeft: (event) => player.seek(player.step - (event.shiftKey ? player.hz : 1)),
    ArrowRight: (event) => player.seek(player.step + (event.shiftKey ? player.hz : 1)),
    "/": () => find("f-text").focus(), n: () => find("note").focus(), "?": () => find("help").showModal(),
    v: () => { if (!find("policy-view").hidden) find("as-policy").click(); },
    r: () => { const button = find("videos").querySelector("button.render"); if (button) button.click(); },
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=search], textarea, select");
    if (event.key === "Escape" && typing) event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || find("help").open) return;
    if (event.key === " " && event.target.matches("button, summary, input[type=checkbox]") && !event.target.matches(".cell")) return;
    if (event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
    const box = /^[1-9]$/.test(event.key) && find("tags").querySelectorAll("input")[Number(event.key) - 1];
    const action = keys[event.key] || (box ? () => box.click() : null);
    if (!action) return;
    event.preventDefault();
    action(event);
  });

  find("filters").addEventListener("input", filter);
  find("filters").addEventListener("reset", () => setTimeout(filter));
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("tags").addEventListener("change", saveTags);
  find("note").addEventListener("change", saveNote);
  window.addEventListener("pagehide", () => {
    saveNote();
    for (const [id, said] of unsaved) source.review(0, id, said.tags, said.note).catch(() => {}); // the page is gone
  });
  find("previous").addEventListener("click", keys.k);
  find("next").addEventListener("click", keys.j);
  find("play").addEventListener("click", keys[" "]);
  find("back").addEventListener("click", () => player.seek(player.step - 1));
  find("forward").addEventListener("click", () => player.seek(player.step + 1));
  find("speed").addEventListener("change", () => player.rate(Number(find("speed").value)));
  find("as-policy").addEventListener("change", showVideos);
  find("scrub").addEventListener("input", () => player.seek(Number(find("scrub").value)));
  find("help-open").addEventListener("click", keys["?"]);
  find("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    plots.draw();
  });

  try {
    runs = await Promise.all(names.map((_, number) => source.run(number)));
  } catch (error) {
    find("title").textContent = "The run cannot be read";
    find("warnings").replaceChildren(make("p", {}, error.message));
    return;
  }
  drawRuns();
  drawChoices();
  const wanted = decodeURIComponent(location.hash.slice(1));
  const failures = grid.order.filter((id) => grid.records[0].get(id) && grid.records[0].get(id).o === "f");
  await choose(grid.cells.has(wanted) ? wanted : failures[0] || grid.order[0]);
  document.documentElement.dataset.ready = "true";
  if (!source.exported) setTimeout(refresh, POLL_MS);
})();
