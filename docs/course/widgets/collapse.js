// An energy that learns in the page: F(y) = min over z of |y - dec(z)|², with an encoder that says where to begin.
(() => {
  "use strict";
  const { course } = window;
  const X = [-1.8, 1.8], Y = [-1.2, 1.2];
  const COLUMNS = 72, ROWS = 48;
  const WIDTH = 24, BATCH = 48, RATE = 6e-3, STEPS_A_FRAME = 4, ENOUGH = 3000;
  const SIDE = 15, INFERENCE_STEPS = 6, DAMPING = 1e-3;
  const LOW = 0.05; // an energy as of data
  const NOISE = 0.35; // of the code, which lies in [-1, 1]
  const KINDS = {
    free: { words: "two numbers, free", codes: 2, noise: 0 },
    one: { words: "one number", codes: 1, noise: 0 },
    noisy: { words: "two numbers, noisy", codes: 2, noise: NOISE },
  };

  // the data: a thin S
  const datum = (draw) => {
    const t = 2 * draw.uniform() - 1;
    return [1.25 * t + 0.02 * draw.normal(), 0.75 * Math.sin(2.6 * t) + 0.02 * draw.normal()];
  };

  // A linear layer, and two layers of tanh beside it whose answer is added.
  class Network {
    constructor(into, out, draw) {
      this.straight = new course.Layer(into, out, draw);
      this.stack = [new course.Layer(into, WIDTH, draw), new course.Layer(WIDTH, WIDTH, draw), new course.Layer(WIDTH, out, draw)];
      this.time = 0;
    }

    forward(x) {
      const inner = this.stack[0].forward(x).map(Math.tanh);
      const outer = this.stack[1].forward(inner).map(Math.tanh);
      const bent = this.stack[2].forward(outer), y = this.straight.forward(x).map((value, k) => value + bent[k]);
      return { x, inner, outer, y };
    }

    // adds to the gradient of the weights; returns that of the input
    backward({ x, inner, outer }, above) {
      const slope = (gradient, value) => gradient.map((g, k) => g * (1 - value[k] * value[k]));
      const [below, atOuter, atInner] = [x.length, WIDTH, WIDTH].map((size) => new Float64Array(size));
      this.straight.backward(x, above, below);
      this.stack[2].backward(outer, above, atOuter);
      this.stack[1].backward(inner, slope(atOuter, outer), atInner);
      this.stack[0].backward(x, slope(atInner, inner), below);
      return below;
    }

    // of output k by the input
    slope({ x, inner, outer }, k) {
      const [straight, first, second, third] = [this.straight, ...this.stack];
      const at = (layer, o, i) => layer.weights[o * (layer.into + 1) + i];
      const middle = new Float64Array(WIDTH);
      for (let o = 0; o < WIDTH; o++) {
        const g = at(third, k, o) * (1 - outer[o] * outer[o]);
        for (let i = 0; i < WIDTH; i++) middle[i] += g * at(second, o, i);
      }
      return Array.from(x, (_, j) => {
        let sum = at(straight, k, j);
        for (let i = 0; i < WIDTH; i++) sum += middle[i] * (1 - inner[i] * inner[i]) * at(first, i, j);
        return sum;
      });
    }

    adam(rate, count) {
      this.time++;
      for (const layer of [this.straight, ...this.stack]) layer.adam(rate, count, this.time);
    }
  }

  class Autoencoder {
    constructor(kind, seed = 1) {
      Object.assign(this, KINDS[kind], { draw: course.random(seed), steps: 0 });
      this.encoder = new Network(2, this.codes, this.draw);
      this.decoder = new Network(this.codes, 2, this.draw);
    }

    // noise means nothing where codes may grow: a noisy one is held within [-1, 1]
    code(raw) {
      return this.noise ? raw.map(Math.tanh) : raw;
    }

    step() {
      const rate = RATE * Math.max(0.05, 1 - this.steps / ENOUGH);
      for (let n = 0; n < BATCH; n++) {
        const y = datum(this.draw);
        const encoded = this.encoder.forward(y);
        const code = this.code(encoded.y);
        const decoded = this.decoder.forward(code.map((value) => value + this.noise * this.draw.normal()));
        const back = this.decoder.backward(decoded, decoded.y.map((value, k) => 2 * (value - y[k])));
        this.encoder.backward(encoded, this.noise ? back.map((g, k) => g * (1 - code[k] * code[k])) : back);
      }
      this.encoder.adam(rate, BATCH);
      this.decoder.adam(rate, BATCH);
      this.steps++;
    }

    // The z that is best for a point: from the encoder's, the nearest known or `last`, by Gauss-Newton steps down.
    infer(x, y, steps = INFERENCE_STEPS, last = null) {
      let best = this.at(x, y, this.code(this.encoder.forward([x, y]).y));
      let nearest = null, distance = best.energy;
      for (const known of this.known()) {
        const away = (known.y[0] - x) ** 2 + (known.y[1] - y) ** 2;
        if (away < distance) [nearest, distance] = [known.z, away];
      }
      for (const z of [nearest, last]) {
        const other = z && this.at(x, y, z);
        if (other && other.energy < best.energy) best = other;
      }
      for (let n = 0; n < steps; n++) {
        const rows = [0, 1].map((k) => this.decoder.slope(best.kept, k)); // of each coordinate by each code
        const gradient = best.z.map((_, i) => rows[0][i] * best.off[0] + rows[1][i] * best.off[1]);
        const product = (i, j) => rows[0][i] * rows[0][j] + rows[1][i] * rows[1][j] + (i === j ? DAMPING : 0);
        const solved = [gradient[0] / product(0, 0)];
        if (this.codes === 2) {
          const [a, b, d] = [product(0, 0), product(0, 1), product(1, 1)], determinant = a * d - b * b;
          solved[0] = (d * gradient[0] - b * gradient[1]) / determinant;
          solved[1] = (a * gradient[1] - b * gradient[0]) / determinant;
        }
        let next = null;
        for (const share of [1, 0.3]) {
          next = this.at(x, y, best.z.map((value, i) => this.within(value - share * solved[i])));
          if (next.energy < best.energy) break;
        }
        if (next.energy >= best.energy) break;
        best = next;
      }
      return best;
    }

    // Codes all over where codes lie, and what they are decoded to. Two free numbers need none: the encoder says enough.
    known() {
      if (this.knownAt === this.steps) return this.places;
      this.knownAt = this.steps;
      const along = (low, high, count) => Array.from({ length: count }, (_, k) => low + ((high - low) * k) / (count - 1));
      let codes = [];
      if (this.noise) codes = along(-1, 1, SIDE).flatMap((one) => along(-1, 1, SIDE).map((other) => [one, other]));
      else if (this.codes === 1) {
        const data = along(-1, 1, SIDE).map((t) => this.encoder.forward([1.25 * t, 0.75 * Math.sin(2.6 * t)]).y[0]);
        const [low, high] = [Math.min(...data), Math.max(...data)], more = high - low;
        codes = along(low - more, high + more, 4 * SIDE).map((code) => [code]);
      }
      this.places = codes.map((code) => {
        const z = Float64Array.from(code);
        return { z, y: this.decoder.forward(z).y };
      });
      return this.places;
    }

    within(value) {
      return this.noise ? course.clamp(value, -1, 1) : value;
    }

    at(x, y, z) {
      const kept = this.decoder.forward(z), off = [kept.y[0] - x, kept.y[1] - y];
      return { z, kept, off, energy: off[0] ** 2 + off[1] ** 2 };
    }
  }

  course.widgets.collapse = (root) => {
    const shownData = course.random(5), DATA = Array.from({ length: 160 }, () => datum(shownData));
    let kind = "free", learner = new Autoencoder(kind), point = [0.35, -0.75], running = true, frames = 0;
    let codes = []; // of the cells of the map, as inferred last

    const plane = new course.Plot({
      aspect: 1.5, x: X, y: Y, label: "The energy of every point of the plane, and the data that it learned from",
      draw(plot, colours) {
        let cell = 0;
        const map = course.onGrid(plot, COLUMNS, ROWS, (x, y) => {
          const found = learner.infer(x, y, 2, codes[cell]);
          codes[cell++] = found.z;
          return found.energy;
        });
        plot.heat(map, COLUMNS, ROWS, (value) => Math.sqrt(value / 0.8));
        plot.contours(map, COLUMNS, ROWS, [0.01, 0.04, 0.1, 0.2, 0.4, 0.8], course.isDark() ? "#ffffff2a" : "#0000002e");
        for (const [x, y] of DATA) plot.dot(x, y, 1.8, colours.curve);
        const there = learner.infer(...point).kept.y;
        plot.path([point, there], colours.point, 2, [5, 4]);
        plot.dot(...there, 5, colours.inferred, colours.outline);
        plot.handle("y", ...point, colours.point, colours);
        plot.text("y", ...point, colours.point, { dx: 12, dy: -10, size: 14, bold: true });
      },
    });
    const numbers = course.numbers({
      steps: "steps of learning", on: "mean F of the data", off: "mean F all over", low: `of the plane below ${LOW}`, point: "F(y)",
    });
    const state = () => {
      const energies = (points) => points.map(([x, y]) => learner.infer(x, y).energy);
      const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
      const all = [];
      course.onGrid(plane, 18, 12, (x, y) => all.push([x, y]));
      const everywhere = energies(all);
      return {
        kind, steps: learner.steps, y: [...point], F: learner.infer(...point).energy, on: mean(energies(DATA)), off: mean(everywhere),
        low: everywhere.filter((value) => value < LOW).length / all.length,
      };
    };
    const changed = () => {
      const now = state();
      const small = (value) => (value < 0.0995 ? value.toFixed(4) : course.rounded(value));
      numbers.show({ steps: String(now.steps), on: small(now.on), off: small(now.off), point: small(now.F), low: `${(100 * now.low).toFixed(0)} %` });
      plane.redraw();
    };
    const choose = (key) => {
      [kind, learner, codes, running] = [key, new Autoencoder(key), [], true];
      changed();
    };
    const advance = (steps) => {
      for (let n = 0; n < steps; n++) learner.step();
      changed();
      return state();
    };
    const frame = () => {
      if (!running || learner.steps >= ENOUGH) return;
      for (let n = 0; n < STEPS_A_FRAME; n++) learner.step();
      if (++frames % 5 === 0) changed();
    };
    plane.draggable(() => [{ name: "y", x: point[0], y: point[1] }], (name, x, y) => {
      point = [course.clamp(x, ...X), course.clamp(y, ...Y)];
      changed();
    }, 0.05);
    const choice = course.choice({
      label: "The code z:", options: Object.fromEntries(Object.entries(KINDS).map(([key, { words }]) => [key, words])), value: kind, onChange: choose,
    });
    const pause = course.button("Pause", () => {
      running = !running;
      pause.textContent = running ? "Pause" : "Go on";
    });
    root.append(
      course.figure(course.panel(plane, "F(y) = min over z of |y − dec(z)|², learned now, in this page, from the small points alone. Drag y: green is dec(z), the nearest that the decoder can draw.")),
      course.controls(choice.root),
      course.controls(pause, course.button("From the start", () => choose(kind))),
      numbers.root,
    );
    course.whileSeen(root, frame);
    changed();
    return { plot: plane, state, advance, choose: choice.choose, pause: () => (running = false) };
  };
  course.Autoencoder = Autoencoder;
})();
