// What the robot was told and felt, over time: strips of actions, gripper and proprioception, queries as ticks, a line at the moment.
"use strict";
window.Review = window.Review || {};

Review.Plots = class {
  constructor(canvas, onSeek) {
    this.canvas = canvas;
    this.courses = [];
    this.steps = 1;
    this.step = 0;
    const seek = (event) => {
      const box = canvas.getBoundingClientRect();
      onSeek(Math.round(this.steps * Math.min(Math.max((event.clientX - box.left - this.left) / this.width(), 0), 1)));
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); seek(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.left = 72;
  }

  width() { return Math.max(this.canvas.clientWidth - this.left - 6, 1); }

  // courses: of one run or two; null for one without.
  show(courses) {
    this.courses = courses;
    this.steps = Math.max(1, ...courses.filter(Boolean).map((course) => course.actions.length));
    this.strips = [
      { name: "translation", rows: "actions", columns: [0, 1, 2], low: -1, high: 1 },
      { name: "rotation", rows: "actions", columns: [3, 4, 5], low: -1, high: 1 },
      { name: "gripper", rows: "actions", columns: [6], low: -1, high: 1 },
      { name: "fingers [m]", rows: "fingers", columns: [0, 1], low: -0.045, high: 0.045 },
      { name: "joints [rad]", rows: "joints", columns: [0, 1, 2, 3, 4, 5, 6], low: -3.2, high: 4 },
    ];
    if (courses.some((course) => course && course.hand.length)) {
      const strip = { name: "hand [m]", rows: "hand", columns: [0, 1, 2] };
      const values = courses.filter(Boolean).flatMap((course) => course.hand.flat()).filter((value) => value !== null);
      strip.low = Math.min(...values);
      strip.high = Math.max(strip.low + 0.01, ...values);
      this.strips.push(strip);
    }
    this.draw();
  }

  at(step) {
    this.step = step;
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !this.strips) return;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const lines = ["--line-1", "--line-2", "--line-3"].map(colour);
    pen.font = "11px system-ui, sans-serif";
    const top = 12, each = (height - top - 4) / this.strips.length;
    const x = (step) => this.left + this.width() * step / this.steps;
    pen.fillStyle = colour("--dim");
    pen.fillText("queries", 4, 10);
    this.courses.forEach((course, number) => {
      if (!course) return;
      pen.fillStyle = lines[number];
      for (const step of course.queries) pen.fillRect(x(step), 2 + 5 * number, 1, this.courses.length > 1 ? 4 : 9);
    });
    this.strips.forEach((strip, row) => {
      const begin = top + row * each + 3, end = begin + each - 6;
      const y = (value) => end - (end - begin) * (value - strip.low) / (strip.high - strip.low);
      pen.strokeStyle = colour("--rule");
      pen.lineWidth = 1;
      pen.strokeRect(this.left + 0.5, Math.round(begin) + 0.5, this.width(), Math.round(end - begin));
      pen.fillStyle = colour("--dim");
      pen.fillText(strip.name, 4, (begin + end) / 2 + 4);
      this.courses.forEach((course, number) => {
        if (!course) return;
        pen.setLineDash(number ? [4, 3] : []);
        strip.columns.forEach((column, k) => {
          pen.strokeStyle = lines[k % lines.length];
          pen.beginPath();
          course[strip.rows].forEach((values, i) => {
            const step = strip.rows === "hand" ? course.queries[i] : i;
            if (values[column] === null) return; // no number
            if (i) pen.lineTo(x(step), y(values[column])); else pen.moveTo(x(step), y(values[column]));
          });
          pen.stroke();
        });
        pen.setLineDash([]);
      });
    });
    pen.fillStyle = colour("--ink");
    pen.fillRect(x(this.step) - 0.5, top, 1.5, height - top - 4);
  }

  // In words, for the step it is at.
  values(course, step) {
    if (!course || !course.actions.length) return "";
    const action = course.actions[Math.min(step, course.actions.length - 1)];
    const show = (value) => value === null ? "none" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
    const parts = course.actionNames.map((name, i) => `${name} ${show(action[i])}`);
    let last = -1;
    course.queries.forEach((query, i) => { if (query <= step) last = i; });
    const asked = last < 0 ? "" : `; asked ${step - course.queries[last]} steps ago`;
    const fingers = course.fingers[Math.min(step, course.fingers.length - 1)];
    const open = `; fingers ${(100 * (fingers[0] - fingers[1])).toFixed(1)} cm apart`;
    const at = last < 0 ? "" : `; hand at ${course.hand[last].map((v) => v === null ? "none" : v.toFixed(3)).join(", ")} m`;
    return `${parts.join("  ")}${open}${at}${asked}`;
  }
};
