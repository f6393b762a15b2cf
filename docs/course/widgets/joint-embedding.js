// A joint embedding that learns in the page, and what becomes of it without each of its terms.
(() => {
  "use strict";
  const { course } = window;
  const WEIGHTS = { prediction: 1, variance: 5, covariance: 0.5, inverse: 3 };
  const TERMS = { prediction: "prediction", variance: "variance", covariance: "covariance", inverse: "inverse dynamics" };
  const BACKGROUNDS = { drifts: "drifts slowly", new: "new each time" };
  const BATCH = 64, RATE = 0.01, WORK_A_FRAME_MS = 3, STEPS_A_FRAME = 3, ENOUGH = 2500, SHOWN = 240, JUDGED_EVERY = 6;
  const READOUT_NOISE = 0.1; // on an embedding that is read
  const FIRST_SEED = 4, EDGE = 3;
  const RING_Y = 2.6, BACKGROUND_Y = -1.7; // where these are drawn
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const squared = (a, b) => (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2;

  course.widgets["joint-embedding"] = (root) => {
    let on = Object.keys(TERMS), background = "drifts", seed = FIRST_SEED, model = null, draw = null, examples = [];
    let running = true, frames = 0;

    const weights = () => Object.fromEntries(Object.entries(WEIGHTS).map(([name, weight]) => [name, on.includes(name) ? weight : 0]));
    const drawn = (random, count) => Array.from({ length: count }, () => course.embeddingExample(random, background === "drifts"));
    const begin = () => {
      [model, draw, examples] = [new course.JointEmbedding(seed), course.random(100 + seed), drawn(course.random(7), SHOWN)];
      run(true);
      changed();
    };
    const hue = (angle) => `hsl(${((angle * 180) / Math.PI).toFixed(0)} 70% ${course.isDark() ? 62 : 44}%)`;

    const world = new course.Plot({
      aspect: 0.8, x: [-3.4, 3.4], y: [-4.25, 4.25], label: "What is seen: a place on a ring, and a background of two numbers",
      draw(plot, colours) {
        for (const { angle, before } of examples) {
          plot.dot(0.8 * before[0], RING_Y + 0.8 * before[1], 2.4, hue(angle));
          plot.dot(0.8 * before[2], BACKGROUND_Y + 0.8 * before[3], 2.4, hue(angle));
        }
        plot.path([[-3.4, 1], [3.4, 1]], colours.line, 1);
        plot.text("place", -3.4, 4.25, colours.faint, { dx: 8, dy: 14 });
        plot.text("background", -3.4, 1, colours.faint, { dx: 8, dy: 14 });
      },
    });
    const embeddings = new course.Plot({
      aspect: 1.35, x: [-1.35 * EDGE, 1.35 * EDGE], y: [-EDGE, EDGE], label: "Embeddings, in the colour of the place on the ring",
      draw(plot, colours) {
        plot.path([[-4, 0], [4, 0]], colours.line, 1);
        plot.path([[0, -3], [0, 3]], colours.line, 1);
        const points = examples.map(({ before }) => model.encode(before));
        const { mean: [x, y], spread, direction } = course.embeddingShape(points);
        points.forEach((point, n) => plot.dot(point[0] - x, point[1] - y, 2.8, hue(examples[n].angle)));
        spread.forEach((length, k) => {
          const [dx, dy] = [length * Math.cos(direction + (k * Math.PI) / 2), length * Math.sin(direction + (k * Math.PI) / 2)];
          plot.path([[-dx, -dy], [dx, dy]], colours.ink, 2.5);
        });
      },
    });

    const numbers = course.numbers({
      steps: "steps of learning", came: "E of what came", other: "E of another's next", spread: "spread, two axes",
      rank: "effective rank", place: "place read, R²", background: "background read, R²", move: "move read, R²",
    });
    // on examples that it has not learned from
    const state = () => {
      const s = examples.map(({ before }) => model.encode(before)), t = examples.map(({ after }) => model.encode(after));
      const predicted = examples.map(({ move }, n) => model.predict(s[n], move));
      const told = examples.map(({ move }, n) => (model.inverse.forward([...s[n], ...t[n]]).y[0] - move) ** 2);
      const read = (first) => course.embeddingReadable(s, examples.map(({ before }) => before.slice(first, first + 2)), READOUT_NOISE);
      const { spread, rank } = course.embeddingShape(s);
      return {
        on: [...on], steps: model.steps, embeddings: s.map((point) => [...point]), spread, rank, place: read(0), background: read(2),
        move: 1 - mean(told) / mean(examples.map(({ move }) => move ** 2)),
        came: mean(predicted.map((point, n) => squared(point, t[n]))),
        other: mean(predicted.map((point, n) => squared(point, t[(n + 1) % SHOWN]))),
      };
    };
    function changed() {
      const now = state(), share = (value) => Math.max(0, value).toFixed(2);
      numbers.show({
        steps: String(now.steps), came: now.came.toFixed(3), other: now.other.toFixed(3), spread: now.spread.map((one) => one.toFixed(2)).join(", "),
        rank: now.rank.toFixed(2), place: share(now.place), background: share(now.background), move: share(now.move),
      });
      world.redraw();
      embeddings.redraw();
    }
    const advance = (steps) => {
      for (let n = 0; n < steps; n++) model.step(drawn(draw, BATCH), weights(), RATE);
      changed();
      return state();
    };
    // the loss of one batch with its terms, and the gradient of every weight, with what they were made from
    const lesson = () => {
      const batch = drawn(course.random(3), 24), terms = model.learn(batch, weights());
      const layers = model.layers.map(({ weights: values, gradient, into }) => ({ weights: [...values], gradient: [...gradient], into }));
      for (const { gradient } of model.layers) gradient.fill(0);
      return { batch, terms, layers };
    };

    const terms = course.switches({
      label: "Terms:", options: TERMS, on,
      onChange(chosen) {
        on = chosen;
        begin();
      },
    });
    const choice = course.choice({
      label: "The background:", options: BACKGROUNDS, value: background,
      onChange(key) {
        background = key;
        begin();
      },
    });
    const pause = course.button("Pause", () => run(!running));
    function run(now) {
      running = now;
      pause.textContent = running ? "Pause" : "Go on";
    }
    const figure = course.figure(
      course.panel(embeddings, "Embeddings s = Enc(x), less their mean, of moments that it has not learned from, coloured by the place on the ring. Cross: the spread along the principal axes."),
      course.panel(world, "What x is: a place on a ring, and two numbers of a background; the colour is that of the place."),
    );
    figure.dataset.columns = "wide-narrow";
    root.append(
      figure,
      course.controls(terms.root),
      course.controls(choice.root),
      course.controls(pause, course.button("From the start", begin), course.button("Other first weights", () => {
        seed++;
        begin();
      })),
      numbers.root,
    );
    course.whileSeen(root, () => {
      if (!running || model.steps >= ENOUGH) return;
      const until = performance.now() + WORK_A_FRAME_MS; // a slow machine learns slower, and its page stays smooth
      for (let n = 0; n < STEPS_A_FRAME && performance.now() < until; n++) model.step(drawn(draw, BATCH), weights(), RATE);
      if (++frames % JUDGED_EVERY === 0) changed();
      else embeddings.redraw();
    });
    begin();
    return { plot: embeddings, state, advance, lesson, choose: terms.choose, setBackground: choice.choose, pause: () => run(false) };
  };
})();
