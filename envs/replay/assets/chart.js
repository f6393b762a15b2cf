// Numbers over time: the cost terms stacked, and a small line per instrument.

const LEAST_RANGE = 0.5;  // of an instrument: less than this looks flat

class CostChart {
  constructor(canvas, legend, episode, palette) {
    Object.assign(this, { canvas, legend, episode, palette });
    this.terms = episode.costs.map((term, place) => ({ ...term, values: episode.values[`cost${place}`] }));
    this.kept = this.terms.length > 0;
    if (!this.kept) this.terms = [this.speed()];
    this.stack();
    this.buildLegend();
  }

  // Shown where no cost terms were kept: the ego's speed after each step.
  speed() {
    const { steps, carCount, values } = this.episode;
    return { name: "ego's speed", colour: "ego", values: Float32Array.from({ length: steps }, (_, i) => values.speed[(i + 1) * carCount]) };
  }

  // Lower and upper edge of each term; what is negative is stacked downwards.
  stack() {
    const steps = this.episode.steps, up = new Float32Array(steps), down = new Float32Array(steps);
    for (const term of this.terms) {
      term.base = new Float32Array(steps);
      term.top = new Float32Array(steps);
      for (let i = 0; i < steps; i++) {
        const value = term.values[i] || 0, side = value < 0 ? down : up;
        term.base[i] = side[i];
        side[i] += value;
        term.top[i] = side[i];
      }
    }
    this.total = up.map((value, i) => value + down[i]);
    this.low = Math.min(0, ...down);
    const realised = Math.max(1e-3, ...up), expected = this.episode.imaginations.flatMap(({ step }) => [...(this.episode.values[`expected${step}`] || [])]);
    this.high = Math.max(realised, Math.min(1.5 * realised, expected.reduce((a, b) => Math.max(a, b), 0)));
  }

  buildLegend() {
    const row = (label, mark, className) => {
      const line = this.legend.insertRow(), head = document.createElement("th");
      line.className = className;
      head.scope = "row";
      head.append(mark, label);
      line.append(head);
      return line.insertCell();
    };
    this.cells = this.terms.map((term) => {
      const mark = document.createElement("i");
      mark.style.background = `var(--${term.colour})`;
      return row(term.name.replaceAll("_", " "), mark, "");
    });
    if (!this.kept) { row("no cost terms were kept", "", ""); return; }
    this.totalCell = row("total", "", "total");
    if (this.episode.arrays.some((array) => array.name.startsWith("expected"))) {
      const mark = document.createElement("i");
      mark.className = "line";
      row("total the driver expected", mark, "");
    }
  }

  draw(t) {
    const { canvas, palette, episode } = this, density = window.devicePixelRatio || 1, [width, height] = fit(canvas, density);
    const context = canvas.getContext("2d");
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    this.area = { left: 44, right: width - 8, top: 10, bottom: height - 20 };
    const ticks = niceTicks(this.low, this.high, Math.max(2, Math.floor(height / 45)));
    this.range = [Math.min(this.low, ticks[0]), Math.max(this.high * 1.04, ticks[ticks.length - 1])];
    this.drawAxes(context, ticks);
    for (const term of this.terms) this.drawTerm(context, term);
    this.drawExpected(context, t);
    const x = this.x(t);
    context.strokeStyle = palette("text");
    context.lineWidth = 1.5;
    line(context, x, this.area.top - 4, x, this.area.bottom);
    context.fillStyle = palette("text");
    context.beginPath();
    context.arc(x, this.area.top - 4, 3.5, 0, 7);
    context.fill();
    const step = Math.max(0, Math.min(Math.ceil(t) - 1, episode.steps - 1));  // the step that led here
    this.terms.forEach((term, i) => { this.cells[i].textContent = number(term.values[step], 3); });
    if (this.totalCell) this.totalCell.textContent = number(this.total[step], 3);
  }

  x(step) { return this.area.left + (step / Math.max(1, this.episode.steps)) * (this.area.right - this.area.left); }
  y(value) { return this.area.bottom - ((value - this.range[0]) / (this.range[1] - this.range[0])) * (this.area.bottom - this.area.top); }
  stepAt(px) { return Math.round(((px - this.area.left) / (this.area.right - this.area.left)) * this.episode.steps); }

  drawAxes(context, ticks) {
    const { palette, episode, area } = this;
    context.font = "11px system-ui, 'Liberation Sans', sans-serif";
    context.fillStyle = palette("muted");
    context.strokeStyle = palette("line");
    context.lineWidth = 1;
    context.textAlign = "right";
    for (const tick of ticks) {
      const y = Math.round(this.y(tick)) + 0.5;
      line(context, area.left, y, area.right, y);
      context.fillText(tickText(tick), area.left - 6, y + 3.5);
    }
    context.textAlign = "center";
    for (const tick of niceTicks(0, episode.duration_s, Math.max(2, Math.floor((area.right - area.left) / 90)))) {
      const x = this.x(tick / episode.dt_s);
      context.fillText(`${tickText(tick)} s`, Math.min(x, area.right - 10), area.bottom + 15);
    }
  }

  drawTerm(context, term) {
    const { steps } = this.episode;
    context.fillStyle = this.palette(term.colour);
    context.beginPath();
    for (let i = 0; i < steps; i++) context.lineTo(this.x(i + 1), this.y(term.top[i]));
    for (let i = steps - 1; i >= 0; i--) context.lineTo(this.x(i + 1), this.y(term.base[i]));
    context.fill();
  }

  // What the driver expected the total to be, from the newest imagination on.
  drawExpected(context, t) {
    const imagined = this.episode.imagined(t), values = imagined && this.episode.values[`expected${imagined.step}`];
    if (!values) return;
    context.save();
    context.beginPath();
    context.rect(this.area.left, this.area.top - 4, this.area.right - this.area.left, this.area.bottom - this.area.top + 4);
    context.clip();
    context.beginPath();
    values.forEach((value, i) => context.lineTo(this.x(imagined.step + 1 + i), this.y(value)));
    context.lineJoin = "round";
    context.strokeStyle = this.palette("panel");
    context.lineWidth = 5;
    context.stroke();
    context.strokeStyle = this.palette("expected");
    context.lineWidth = 2;
    context.setLineDash([5, 3]);
    context.stroke();
    context.restore();
  }
}

// A line over the whole episode with a dot at the present.
function sparkline(canvas, read, steps, t, palette) {
  const density = window.devicePixelRatio || 1, [width, height] = fit(canvas, density), context = canvas.getContext("2d");
  context.setTransform(density, 0, 0, density, 0, 0);
  context.clearRect(0, 0, width, height);
  const values = Array.from({ length: steps + 1 }, (_, i) => read(i)), seen = values.filter(Number.isFinite);
  if (!seen.length) return;
  let low = Math.min(...seen), high = Math.max(...seen);
  const room = Math.max(0, LEAST_RANGE - (high - low)) / 2;
  low -= room;
  high += room;
  const x = (i) => 3 + (i / Math.max(1, steps)) * (width - 6), y = (value) => 3 + (1 - (value - low) / (high - low)) * (height - 6);
  context.lineWidth = 1.3;
  context.lineJoin = "round";
  for (const [from, to, colour] of [[0, Math.floor(t), "accent"], [Math.floor(t), steps, "line"]]) {
    context.strokeStyle = palette(colour);
    context.beginPath();
    let open = false;
    for (let i = from; i <= to; i++) {
      if (!Number.isFinite(values[i])) { open = false; continue; }
      if (open) context.lineTo(x(i), y(values[i])); else context.moveTo(x(i), y(values[i]));
      open = true;
    }
    context.stroke();
  }
  const now = values[Math.floor(t)];
  if (!Number.isFinite(now)) return;
  context.fillStyle = palette("accent");
  context.beginPath();
  context.arc(x(t), y(now), 2.6, 0, 7);
  context.fill();
}

function line(context, x1, y1, x2, y2) {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}

function niceTicks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough || 1));
  const step = [1, 2, 5, 10].map((m) => m * power).find((size) => size >= rough) || 1;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9); i++) ticks.push(i * step);
  return ticks.length ? ticks : [0];
}

function tickText(value) { return String(Number(value.toPrecision(4))); }

function number(value, digits) {
  if (!Number.isFinite(value)) return "–";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}
