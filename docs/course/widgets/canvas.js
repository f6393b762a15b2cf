// What the widgets of the course share: plots on a canvas with handles to drag, sliders, numbers. No library.
(() => {
  "use strict";

  const course = { widgets: {}, running: {}, failed: {} };
  window.course = course;

  const LIGHT = {
    ink: "#1c2530", faint: "#8a94a0", line: "#c9d0d8", paper: "#ffffff", outline: "#ffffff",
    point: "#d1570b", inferred: "#0b6b4f", second: "#8e3fa0", curve: "#1c2530", road: "#e4e7ea", car: "#8d99a6",
    heat: ["#1d4e89", "#4f8fc9", "#a9cbe8", "#e3eef8", "#fbfcfe"],
    kinds: ["#d1570b", "#0b6b4f", "#8e3fa0", "#a97c00"],
  };
  const DARK = {
    ink: "#e8edf2", faint: "#94a0ad", line: "#3b4550", paper: "#12171d", outline: "#0c1014",
    point: "#ff9a4d", inferred: "#5fd3a8", second: "#d79be6", curve: "#e8edf2", road: "#262d35", car: "#6f7c8a",
    heat: ["#8fcaff", "#3f86c6", "#235384", "#172f49", "#12181f"],
    kinds: ["#ff9a4d", "#5fd3a8", "#d79be6", "#e8c45a"],
  };

  const darkWished = matchMedia("(prefers-color-scheme: dark)");
  course.isDark = () => {
    const theme = document.body.dataset.theme;
    return theme === "dark" || (theme !== "light" && darkWished.matches);
  };
  course.colours = () => (course.isDark() ? DARK : LIGHT);

  const plots = new Set();
  const redrawAll = () => plots.forEach((plot) => plot.redraw());
  darkWished.addEventListener("change", redrawAll);

  course.element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (name in made && name !== "list") made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  };
  const element = course.element;

  // ---- numbers ---------------------------------------------------------------------------------------------------

  // mulberry32: the same numbers on every machine
  course.random = (seed) => {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return { uniform, normal };
  };

  // -1/beta log mean exp(-beta E)
  course.softMinimum = (energies, beta) => {
    let least = Infinity;
    for (const energy of energies) least = Math.min(least, energy);
    let sum = 0;
    for (const energy of energies) sum += Math.exp(-beta * (energy - least));
    return least - Math.log(sum / energies.length) / beta;
  };

  course.clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // ---- plots -----------------------------------------------------------------------------------------------------

  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  function heatColour(stops, share) {
    const place = course.clamp(share, 0, 1) * (stops.length - 1);
    const from = Math.min(Math.floor(place), stops.length - 2);
    const t = place - from;
    return stops[from].map((value, channel) => value + (stops[from + 1][channel] - value) * t);
  }

  // A canvas with world coordinates: x to the right, y up.
  class Plot {
    constructor({ aspect, x, y, label, margin = [0, 0, 0, 0], draw }) {
      Object.assign(this, { xRange: x, yRange: y, margin, paint: draw, handles: null, chosen: null });
      this.canvas = element("canvas", { className: "course-canvas", role: "img", ariaLabel: label });
      this.canvas.style.aspectRatio = String(aspect);
      this.context = this.canvas.getContext("2d");
      this.queued = false;
      new ResizeObserver(() => this.redraw()).observe(this.canvas);
      plots.add(this);
    }

    redraw() {
      if (this.queued) return;
      this.queued = true;
      requestAnimationFrame(() => {
        this.queued = false;
        this.drawNow();
      });
    }

    drawNow() {
      const { clientWidth: width, clientHeight: height } = this.canvas;
      if (!width || !height) return;
      const density = Math.min(window.devicePixelRatio || 1, 3);
      const [wide, high] = [Math.round(width * density), Math.round(height * density)];
      if (this.canvas.width !== wide || this.canvas.height !== high) Object.assign(this.canvas, { width: wide, height: high });
      Object.assign(this, { width, height });
      this.context.setTransform(density, 0, 0, density, 0, 0);
      this.context.clearRect(0, 0, width, height);
      this.paint(this, course.colours());
    }

    get inner() {
      const [top, right, bottom, left] = this.margin;
      return { left, top, width: this.width - left - right, height: this.height - top - bottom };
    }

    px(x) {
      const { left, width } = this.inner;
      return left + ((x - this.xRange[0]) / (this.xRange[1] - this.xRange[0])) * width;
    }

    py(y) {
      const { top, height } = this.inner;
      return top + (1 - (y - this.yRange[0]) / (this.yRange[1] - this.yRange[0])) * height;
    }

    at(event) {
      const box = this.canvas.getBoundingClientRect();
      const { left, top, width, height } = this.inner;
      const x = (event.clientX - box.left - left) / width;
      const y = 1 - (event.clientY - box.top - top) / height;
      return [
        this.xRange[0] + x * (this.xRange[1] - this.xRange[0]),
        this.yRange[0] + y * (this.yRange[1] - this.yRange[0]),
      ];
    }

    // values: rows from the least y on, each from the least x on
    heat(values, columns, rows, share) {
      const stops = course.colours().heat.map(rgb);
      const image = new ImageData(columns, rows);
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          const to = ((rows - 1 - row) * columns + column) * 4;
          const value = values[row * columns + column];
          if (Number.isNaN(value)) continue;
          image.data.set([...heatColour(stops, share(value)), 255], to);
        }
      }
      const small = document.createElement("canvas");
      Object.assign(small, { width: columns, height: rows });
      small.getContext("2d").putImageData(image, 0, 0);
      const { left, top, width, height } = this.inner;
      this.context.imageSmoothingEnabled = true;
      this.context.imageSmoothingQuality = "high";
      this.context.drawImage(small, left, top, width, height);
    }

    // lines of equal value, by marching squares
    contours(values, columns, rows, levels, colour, width = 0.8) {
      const { left, top, width: wide, height } = this.inner;
      const x = (column) => left + ((column + 0.5) / columns) * wide;
      const y = (row) => top + (1 - (row + 0.5) / rows) * height;
      const context = this.context;
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      for (const level of levels) {
        for (let row = 0; row + 1 < rows; row++) {
          for (let column = 0; column + 1 < columns; column++) {
            const a = values[row * columns + column] - level, b = values[row * columns + column + 1] - level;
            const d = values[(row + 1) * columns + column] - level, c = values[(row + 1) * columns + column + 1] - level;
            const crossed = [];
            if (a < 0 !== b < 0) crossed.push([x(column + a / (a - b)), y(row)]);
            if (b < 0 !== c < 0) crossed.push([x(column + 1), y(row + b / (b - c))]);
            if (d < 0 !== c < 0) crossed.push([x(column + d / (d - c)), y(row + 1)]);
            if (a < 0 !== d < 0) crossed.push([x(column), y(row + a / (a - d))]);
            for (let i = 0; i + 1 < crossed.length; i += 2) {
              context.moveTo(...crossed[i]);
              context.lineTo(...crossed[i + 1]);
            }
          }
        }
      }
      context.stroke();
    }

    path(points, colour, width = 1.5, dash = [], fill = null) {
      const context = this.context;
      context.save();
      context.beginPath();
      points.forEach(([x, y], index) => context[index ? "lineTo" : "moveTo"](this.px(x), this.py(y)));
      if (fill) {
        context.fillStyle = fill;
        context.fill();
      }
      if (colour) {
        context.setLineDash(dash);
        context.lineJoin = "round";
        Object.assign(context, { strokeStyle: colour, lineWidth: width });
        context.stroke();
      }
      context.restore();
    }

    dot(x, y, radius, fill, outline, width = 2) {
      const context = this.context;
      context.beginPath();
      context.arc(this.px(x), this.py(y), radius, 0, 2 * Math.PI);
      if (fill) {
        context.fillStyle = fill;
        context.fill();
      }
      if (outline) {
        Object.assign(context, { strokeStyle: outline, lineWidth: width });
        context.stroke();
      }
    }

    handle(name, x, y, colour, colours) {
      const chosen = this.chosen === name && document.activeElement === this.canvas;
      if (chosen) this.dot(x, y, 13, null, colour, 2);
      this.dot(x, y, 8, colour, colours.outline, 2.5);
    }

    text(words, x, y, colour, { align = "left", base = "middle", size = 12, dx = 0, dy = 0, bold = false } = {}) {
      const context = this.context;
      const family = getComputedStyle(document.body).fontFamily;
      context.font = `${bold ? "600 " : ""}${size}px ${family}`;
      Object.assign(context, { fillStyle: colour, textAlign: align, textBaseline: base });
      context.fillText(words, this.px(x) + dx, this.py(y) + dy);
    }

    frame(colours) {
      const { left, top, width, height } = this.inner;
      Object.assign(this.context, { strokeStyle: colours.line, lineWidth: 1 });
      this.context.strokeRect(left + 0.5, top + 0.5, width - 1, height - 1);
    }

    // Handles {name, x, y} to drag by pointer or to move by the arrow keys, `step` at a time.
    draggable(handles, onMove, step, reach = 34) {
      const canvas = this.canvas;
      canvas.tabIndex = 0;
      canvas.classList.add("is-draggable");
      let held = null;
      const nearest = (event) => {
        const box = canvas.getBoundingClientRect();
        let best = null, distance = Infinity;
        for (const handle of handles()) {
          const away = Math.hypot(this.px(handle.x) - (event.clientX - box.left), this.py(handle.y) - (event.clientY - box.top));
          if (away < distance) [best, distance] = [handle, away];
        }
        return distance <= reach ? best : null;
      };
      canvas.addEventListener("pointerdown", (event) => {
        const found = nearest(event);
        if (!found) return;
        event.preventDefault();
        canvas.focus({ preventScroll: true });
        held = this.chosen = found.name;
        canvas.setPointerCapture(event.pointerId);
        onMove(held, ...this.at(event));
        this.redraw();
      });
      canvas.addEventListener("pointermove", (event) => {
        if (held === null) canvas.style.cursor = nearest(event) ? "grab" : "default";
        else onMove(held, ...this.at(event));
      });
      for (const end of ["pointerup", "pointercancel"]) {
        canvas.addEventListener(end, () => {
          held = null;
        });
      }
      // a finger that starts on a handle moves it; elsewhere it scrolls the page
      canvas.addEventListener("touchstart", (event) => nearest(event.touches[0]) && event.preventDefault(), { passive: false });
      canvas.addEventListener("focus", () => {
        if (this.chosen === null) this.chosen = handles()[0]?.name ?? null;
        this.redraw();
      });
      canvas.addEventListener("blur", () => this.redraw());
      canvas.addEventListener("keydown", (event) => {
        const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
        const way = ways[event.key];
        const all = handles();
        const now = all.find((handle) => handle.name === this.chosen);
        if (way && now) {
          event.preventDefault();
          onMove(now.name, now.x + way[0] * step, now.y + way[1] * step);
        } else if ((event.key === "n" || event.key === " ") && all.length > 1) {
          event.preventDefault();
          this.chosen = all[(all.indexOf(now) + 1) % all.length].name;
          this.redraw();
        }
      });
    }
  }
  course.Plot = Plot;

  // values on a grid, of the middle of each cell; rows from the least y on
  course.onGrid = (plot, columns, rows, value) => {
    const values = new Float64Array(columns * rows);
    const [x0, x1] = plot.xRange, [y0, y1] = plot.yRange;
    for (let row = 0; row < rows; row++) {
      const y = y0 + ((row + 0.5) / rows) * (y1 - y0);
      for (let column = 0; column < columns; column++) {
        values[row * columns + column] = value(x0 + ((column + 0.5) / columns) * (x1 - x0), y);
      }
    }
    return values;
  };

  // ---- controls --------------------------------------------------------------------------------------------------

  course.slider = ({ label, low, high, value, logarithmic = false, format, onInput }) => {
    const STEPS = 400;
    const to = (v) => (logarithmic ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low)) * STEPS;
    const from = (s) => (logarithmic ? low * (high / low) ** (s / STEPS) : low + ((high - low) * s) / STEPS);
    const shown = element("output", {}, format(value));
    const input = element("input", { type: "range", min: 0, max: STEPS, step: 1, value: Math.round(to(value)), ariaLabel: label });
    let now = value;
    input.addEventListener("input", () => {
      now = from(Number(input.value));
      shown.textContent = format(now);
      onInput(now);
    });
    return {
      root: element("label", { className: "course-slider" }, element("span", {}, label), input, shown),
      get value() {
        return now;
      },
      set value(v) {
        now = v;
        input.value = String(Math.round(to(v)));
        shown.textContent = format(v);
      },
    };
  };

  let groups = 0;
  course.choice = ({ label, options, value, onChange }) => {
    const name = `course-choice-${groups++}`;
    const root = element("fieldset", { className: "course-choice" }, element("legend", {}, label));
    const inputs = {};
    for (const [key, words] of Object.entries(options)) {
      const input = element("input", { type: "radio", name, value: key, checked: key === value });
      input.addEventListener("change", () => onChange(key));
      inputs[key] = input;
      root.append(element("label", {}, input, element("span", {}, words)));
    }
    return { root, choose: (key) => inputs[key].click() };
  };

  // what can be on or off, each by itself
  course.switches = ({ label, options, on, onChange }) => {
    const root = element("fieldset", { className: "course-choice" }, element("legend", {}, label));
    const inputs = {};
    const chosen = () => Object.keys(inputs).filter((key) => inputs[key].checked);
    for (const [key, words] of Object.entries(options)) {
      inputs[key] = element("input", { type: "checkbox", checked: on.includes(key), onchange: () => onChange(chosen()) });
      root.append(element("label", {}, inputs[key], element("span", {}, words)));
    }
    const choose = (keys) => {
      for (const [key, input] of Object.entries(inputs)) input.checked = keys.includes(key);
      onChange(chosen());
    };
    return { root, choose };
  };

  course.button = (words, onClick) => element("button", { type: "button", className: "course-button", onclick: onClick }, words);

  // a row of named numbers
  course.numbers = (names) => {
    const cells = {};
    const root = element("dl", { className: "course-numbers" });
    for (const [key, words] of Object.entries(names)) {
      cells[key] = element("dd", {});
      root.append(element("div", {}, element("dt", {}, words), cells[key]));
    }
    return {
      root,
      show(values) {
        for (const [key, value] of Object.entries(values)) {
          const text = typeof value === "number" ? course.rounded(value) : value;
          if (cells[key].textContent !== text) cells[key].textContent = text;
        }
      },
    };
  };

  course.rounded = (value) => {
    if (!Number.isFinite(value)) return "–";
    const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 1 ? 2 : 3;
    return value.toFixed(digits).replace("-", "−");
  };

  course.figure = (...parts) => element("div", { className: "course-figure" }, ...parts);
  course.panel = (plot, words) =>
    element("figure", { className: "course-panel" }, plot.canvas, element("figcaption", {}, words));
  course.controls = (...parts) => element("div", { className: "course-controls" }, ...parts);

  // true while the widget can be seen; animations stop elsewhere
  course.whileSeen = (root, onFrame) => {
    let seen = false, queued = false;
    const frame = () => {
      queued = false;
      if (!seen || document.hidden) return;
      onFrame();
      queue();
    };
    const queue = () => {
      if (!queued) {
        queued = true;
        requestAnimationFrame(frame);
      }
    };
    new IntersectionObserver(([entry]) => {
      seen = entry.isIntersecting;
      if (seen) queue();
    }).observe(root);
    document.addEventListener("visibilitychange", () => seen && queue());
  };

  document.addEventListener("DOMContentLoaded", () => {
    new MutationObserver(redrawAll).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });
    for (const place of document.querySelectorAll("[data-widget]")) {
      const name = place.dataset.widget;
      if (!course.widgets[name]) continue;
      const root = element("div", { className: "course-widget" });
      course.running[name] = course.widgets[name](root); // throws before the picture is taken away
      place.replaceChildren(root);
    }
  });
})();
