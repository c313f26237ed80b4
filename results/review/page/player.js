// One video, or two in step: play, frame by frame, at any speed; and a button that draws a video that is missing.
"use strict";

Review.Player = class {
  // onStep(step): the moment changed. hz: frames per second.
  constructor(place, onStep) {
    this.place = place;
    this.onStep = onStep;
    this.hz = 20;
    this.speed = 1;
    this.videos = [];
    this.last = -1;
    this.sought = 0;
    this.token = 0;
    const tick = () => { this.follow(); requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
  }

  get playing() { return this.videos.some((video) => !video.paused && !video.ended); }
  get step() {
    if (!this.videos.length) return this.sought; // nothing to see, but something to read
    return Math.max(...this.videos.map((video) => Math.floor(video.currentTime * this.hz + 0.01)));
  }

  // shown: [{run, name, sees, record}] of one run or two; sees: whether its policy saw images; record undefined where it has no such episode.
  show(shown, view) {
    const { make } = Review;
    this.pause();
    this.token += 1;
    this.videos = [];
    this.last = -1;
    this.sought = 0;
    this.place.replaceChildren(...shown.map(({ run, name, sees, record }) => {
      const figure = make("figure");
      const caption = make("figcaption", {}, shown.length > 1 ? `${name}: ` : "", record ? Review.outcomes[record.o] : "not in this run");
      if (record) caption.append(` · ${record.n} steps, ${record.q} queries`);
      const blind = view === "policy" && !sees;
      const picture = record && !blind ? this.picture(run, record, view)
        : make("div", { className: "none" }, record ? "The policy of this run saw no images." : "No episode");
      figure.append(picture, caption);
      return figure;
    }));
  }

  picture(run, record, view) {
    const there = view === "policy" ? record.p : record.v;
    if (there) return this.video(run, record, view);
    return this.missing(run, record, view);
  }

  video(run, record, view) {
    const video = Review.make("video", { preload: "auto", muted: true, playsInline: true });
    video.src = Review.source.video(run, record.id, view);
    video.setAttribute("aria-label", `Video of ${record.id}`);
    video.playbackRate = this.speed;
    video.addEventListener("error", () => {
      this.videos = this.videos.filter((other) => other !== video);
      video.replaceWith(Review.make("div", { className: "none" }, "The video cannot be played: it is missing or damaged."));
    });
    video.addEventListener("click", () => this.toggle());
    this.videos.push(video);
    return video;
  }

  missing(run, record, view) {
    const { make } = Review;
    const box = make("div", { className: "none" });
    if (!record.t) return make("div", { className: "none" }, "It ended in an error and left nothing to see.");
    const what = view === "policy" ? "No video of what the policy saw" : "No video";
    if (Review.source.exported) return make("div", { className: "none" }, `${what} in this export.`);
    const button = make("button", { type: "button", className: "render" }, "Render it");
    const progress = make("progress", { max: 1, value: 0, hidden: true });
    progress.setAttribute("aria-label", "Rendering");
    const said = make("span", { className: "said" });
    said.setAttribute("role", "status");
    box.append(make("span", {}, `${what}. `), button, progress, said);
    button.addEventListener("click", () => this.render(run, record, view, { box, button, progress, said }));
    const token = this.token;
    Review.source.rendering(run, record.id, view).then((state) => {
      if (this.token !== token) return;
      if (state.state === "waiting" || state.state === "rendering") button.click();
      if (state.state === "done") this.found(run, record, view, box);
      if (state.state === "failed") said.textContent = state.error;
    }, (error) => { said.textContent = error.message; });
    return box;
  }

  async render(run, record, view, { box, button, progress, said }) {
    const token = this.token;
    button.disabled = true;
    progress.hidden = false;
    try {
      let state = await Review.source.render(run, record.id, view);
      while (state.state === "waiting" || state.state === "rendering") {
        progress.value = state.frames ? state.frame / state.frames : 0;
        said.textContent = state.frames ? `frame ${state.frame} of ${state.frames}` : state.state === "waiting" ? "waiting" : "setting up the scene";
        await new Promise((resolve) => setTimeout(resolve, 500));
        if (this.token !== token) return; // another episode is looked at
        state = await Review.source.rendering(run, record.id, view);
      }
      if (state.state === "failed") throw new Error(state.error);
      if (this.token === token) this.found(run, record, view, box);
    } catch (error) {
      progress.hidden = true;
      button.disabled = false;
      button.textContent = "Try again";
      said.textContent = error.message;
    }
  }

  // It is there now.
  found(run, record, view, box) {
    record[view === "policy" ? "p" : "v"] = true;
    box.replaceWith(this.video(run, record, view));
  }

  atEnd(video) { return video.ended || video.currentTime > video.duration - 1.2 / this.hz; }

  // Two videos must not drift; the clock must not lag.
  follow() {
    const step = this.step;
    const [first, second] = this.videos;
    const both = second && !first.paused && !second.paused && !first.seeking && !second.seeking;
    if (both && !this.atEnd(first) && !this.atEnd(second) && Math.abs(first.currentTime - second.currentTime) > 1.5 / this.hz) {
      second.currentTime = first.currentTime;
    }
    if (step !== this.last) {
      this.last = step;
      this.onStep(step);
    }
  }

  toggle() { if (this.playing) this.pause(); else this.play(); }

  play() {
    if (this.videos.length && this.videos.every((video) => this.atEnd(video))) this.seek(0);
    for (const video of this.videos) if (!this.atEnd(video)) video.play().catch(() => {}); // it was taken away meanwhile
  }

  pause() { for (const video of this.videos) video.pause(); }

  seek(step) {
    this.pause();
    this.sought = Math.max(step, 0);
    for (const video of this.videos) {
      const end = Number.isFinite(video.duration) ? video.duration : step / this.hz;
      video.currentTime = Math.min(Math.max(step, 0) / this.hz + 0.5 / this.hz, Math.max(end - 0.25 / this.hz, 0));
    }
    this.last = step;
    this.onStep(Math.max(step, 0));
  }

  rate(speed) {
    this.speed = speed;
    for (const video of this.videos) video.playbackRate = speed;
  }
};
