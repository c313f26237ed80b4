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
  const grid = new Review.Grid(find("grid"), choose);
  const plots = new Review.Plots(find("plots"), (step) => player.seek(step));
  const player = new Review.Player(find("videos"), moment);

  function moment(step) {
    const at = Math.min(step, Number(find("scrub").max));
    find("scrub").value = at;
    find("clock").textContent = `${(at / player.hz).toFixed(2)} s, step ${at}`;
    find("play").textContent = player.playing ? "Pause" : "Play";
    plots.at(at);
    find("values").textContent = courses.map((course) => plots.values(course, at)).filter(Boolean).join("\n");
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
    find("error").hidden = true;
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
    player.show(runs.map((run, number) => ({ run: number, name: run.name, record: grid.records[number].get(chosen) })), view);
    find("play").textContent = "Play";
  }

  function showReview() {
    const said = reviews(chosen);
    for (const box of find("tags").querySelectorAll("input")) box.checked = said.tags.includes(box.value);
    if (document.activeElement !== find("note")) find("note").value = said.note;
    find("saved").textContent = "";
  }

  function save(id, tags, note) {
    runs[0].reviews[id] = { tags, note };
    if (!tags.length && !note) delete runs[0].reviews[id];
    find("saved").textContent = "Saving…";
    saving = saving.then(() => source.review(0, id, tags, note)).then(
      () => { if (chosen === id) find("saved").textContent = "Saved."; },
      (error) => { find("saved").textContent = `Not saved: ${error.message}`; },
    );
    filter();
  }

  function saveTags() {
    const tags = [...find("tags").querySelectorAll("input:checked")].map((box) => box.value);
    save(chosen, tags, find("note").value);
  }

  function saveNote() {
    if (!source.exported && chosen && find("note").value !== reviews(chosen).note) save(chosen, reviews(chosen).tags, find("note").value);
  }

  function drawRuns() {
    const [first] = runs;
    player.hz = first.hz;
    find("title").textContent = names.join(" and ");
    document.title = `${names.join(" and ")} · vla-review`;
    find("live").hidden = !runs.some((run) => run.running);
    find("warnings").replaceChildren(...runs.flatMap((run) => run.warnings.map((text) => make("p", {}, `${run.name}: ${text}`))));
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
      const box = make("input", { type: "checkbox", value: tag, disabled: source.exported });
      box.setAttribute("aria-keyshortcuts", `${i + 1}`);
      find("tags").append(make("label", {}, box, make("kbd", {}, `${i + 1}`), ` ${tag}`));
    });
    find("flipped").hidden = runs.length < 2;
    find("note").readOnly = source.exported;
    if (runs.length > 1) find("tags").querySelector("legend").textContent = `Why it failed (${runs[0].name})`;
  }

  async function refresh() {
    for (let number = 0; number < runs.length; number += 1) {
      try {
        if (await source.version(number) === runs[number].version && !runs[number].running) continue;
        const before = runs[number].version, was = runs[number].running;
        const now = await source.run(number);
        if (now.version === before && now.running === was) continue;
        const wanted = now.episodes.find((episode) => episode.id === chosen);
        const had = grid.records[number].get(chosen);
        await saving;
        runs[number] = now;
        drawRuns();
        if (chosen && wanted && !had) choose(chosen); else if (chosen) showReview();
        if (!chosen) choose(grid.shown[0]);
      } catch (error) {
        find("warnings").replaceChildren(make("p", {}, `The server does not answer: ${error.message}`));
      }
    }
    setTimeout(refresh, POLL_MS);
  }

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
