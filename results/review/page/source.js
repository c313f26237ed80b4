// Where the page's data come from: the server, or scripts of an exported folder (a page opened from a file may not fetch).
"use strict";
window.Review = window.Review || {};

Review.source = (() => {
  const exported = window.reviewExport && window.reviewExport.runs;
  const loading = new Map();

  function script(key, path) {
    const data = () => window.reviewData && window.reviewData[key];
    if (!loading.has(key)) {
      loading.set(key, new Promise((resolve, reject) => {
        const element = document.createElement("script");
        element.src = path;
        element.onload = () => resolve(data());
        element.onerror = () => { loading.delete(key); reject(new Error(`${path} is missing`)); };
        document.head.append(element);
      }));
    }
    return loading.get(key);
  }

  async function ask(path, options) {
    const response = await fetch(path, options);
    const content = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(content.error || `${response.status} ${response.statusText}`);
    return content;
  }

  const post = (path, content) => ask(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content), keepalive: true,
  });
  const query = (id, view) => `?id=${encodeURIComponent(id)}${view ? `&view=${view}` : ""}`;

  function exportedVideo(run, id, view) {
    const [suite, task, init, repeat] = id.split("/").map(encodeURIComponent);
    return `data/${run}/videos/${suite}/${task}/${init}-${repeat}${view === "policy" ? ".policy" : ""}.mp4`;
  }

  return {
    exported: Boolean(exported),
    runs: async () => exported || (await ask("api/runs")).runs,
    comparison: () => exported ? script("comparison", "data/comparison.js") : ask("api/comparison"),
    run: (run) => exported ? script(`${run}`, `data/${run}/run.js`) : ask(`api/runs/${run}`),
    version: async (run) => (await ask(`api/runs/${run}/version`)).version,
    episode: (run, id) => exported
      ? script(`${run}/${id}`, `data/${run}/${encodeURIComponent(id.replaceAll("/", "_"))}.js`)
      : ask(`api/runs/${run}/episode${query(id)}`),
    video: (run, id, view) => exported ? exportedVideo(run, id, view) : `api/runs/${run}/video${query(id, view)}`,
    review: (run, id, tags, note) => post(`api/runs/${run}/review`, { id, tags, note }),
    render: (run, id, view) => post(`api/runs/${run}/render`, { id, view }),
    rendering: (run, id, view) => ask(`api/runs/${run}/render${query(id, view)}`),
  };
})();
