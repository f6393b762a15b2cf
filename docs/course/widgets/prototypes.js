// Prototypes: E(y, k) = |y - w_k|², the latent says which. F_inf is that of k-means, F_beta that of a Gaussian mixture.
(() => {
  "use strict";
  const { course } = window;
  const X = [-2.4, 2.4], Y = [-1.6, 1.6];
  const COLUMNS = 120, ROWS = 80;
  const MIDDLES = [[-1.3, 0.6], [1.2, 0.75], [0.35, -0.8]]; // of the data
  const EACH = 24, SPREAD = 0.24;
  const START = [[-0.35, -0.15], [0.1, 0.35], [0.45, -0.1]];

  const draw = course.random(3);
  const DATA = MIDDLES.flatMap(([x, y]) =>
    Array.from({ length: EACH }, () => [x + SPREAD * draw.normal(), y + SPREAD * draw.normal()]),
  );

  const energies = (prototypes, x, y) => prototypes.map(([px, py]) => (x - px) ** 2 + (y - py) ** 2);
  // how much each prototype counts for a point: all for the nearest, or in proportion to exp(-beta E)
  function shares(values, shown, beta) {
    const least = Math.min(...values);
    const weights = values.map((value) => (shown === "inf" ? Number(value === least) : Math.exp(-beta * (value - least))));
    const sum = weights.reduce((a, b) => a + b);
    return weights.map((weight) => weight / sum);
  }

  course.widgets.prototypes = (root) => {
    let prototypes = START.map((place) => [...place]), point = [0.2, 0.75], beta = 4, shown = "inf";
    let map = null, mapOf = "", running = false, waited = 0;
    const free = (x, y) => {
      const values = energies(prototypes, x, y);
      return shown === "inf" ? Math.min(...values) : course.softMinimum(values, beta);
    };
    const meanFree = () => DATA.reduce((sum, [x, y]) => sum + free(x, y), 0) / DATA.length;

    const plane = new course.Plot({
      aspect: 1.5, x: X, y: Y, label: "The free energy of every point of the plane, the data and the prototypes",
      draw(plot, colours) {
        const key = JSON.stringify([prototypes, shown, shown === "inf" ? 0 : beta]);
        if (key !== mapOf) [map, mapOf] = [course.onGrid(plot, COLUMNS, ROWS, free), key];
        const least = Math.min(...map);
        plot.heat(map, COLUMNS, ROWS, (value) => Math.sqrt((value - least) / 4));
        const levels = [0.1, 0.4, 0.9, 1.6, 2.5, 3.6].map((level) => level + least);
        plot.contours(map, COLUMNS, ROWS, levels, course.isDark() ? "#ffffff22" : "#00000026");
        for (const [x, y] of DATA) {
          const parts = shares(energies(prototypes, x, y), shown, beta);
          plot.dot(x, y, 3, colours.kinds[parts.indexOf(Math.max(...parts))], colours.outline, 1);
        }
        shares(energies(prototypes, ...point), shown, beta).forEach((share, k) => {
          if (share > 0.005) plot.path([point, prototypes[k]], colours.kinds[k], 0.5 + 3.5 * share, [5, 4]);
        });
        prototypes.forEach(([x, y], k) => {
          plot.handle(`w${k}`, x, y, colours.kinds[k], colours);
          plot.text(`w${k + 1}`, x, y, colours.ink, { dx: 12, dy: -10, bold: true });
        });
        plot.handle("y", ...point, colours.ink, colours);
        plot.text("y", ...point, colours.ink, { dx: 12, dy: -10, size: 14, bold: true });
      },
    });

    const bars = new course.Plot({
      aspect: 1.25, x: [0, 3], y: [0, 1], margin: [16, 8, 24, 8], label: "The energy of the point for each prototype",
      draw(plot, colours) {
        const values = energies(prototypes, ...point);
        const soft = course.softMinimum(values, beta);
        const top = Math.max(...values, soft) * 1.15;
        plot.yRange = [Math.min(0, soft), top];
        const parts = shares(values, shown, beta);
        values.forEach((value, k) => {
          const faded = parts[k] > 0.5 ? "" : parts[k] > 0.02 ? "aa" : "55";
          plot.path([[k + 0.2, 0], [k + 0.2, value], [k + 0.8, value], [k + 0.8, 0]], null, 0, [], colours.kinds[k] + faded);
          plot.text(course.rounded(value), k + 0.5, value, colours.ink, { align: "center", dy: -9 });
          plot.text(`z = ${k + 1}: ${(100 * parts[k]).toFixed(0)} %`, k + 0.5, plot.yRange[0], colours.faint, { align: "center", dy: 14, size: 11 });
        });
        const level = shown === "inf" ? Math.min(...values) : soft;
        plot.path([[0, level], [3, level]], colours.ink, 1.2, [5, 4]);
      },
    });

    const numbers = course.numbers({ z: "inferred z of y", inf: "F_inf(y)", beta: "F_β(y)", mean: "mean F over the data" });
    const state = () => {
      const values = energies(prototypes, ...point);
      return {
        y: [...point], prototypes: prototypes.map((place) => [...place]), data: DATA, beta, shown,
        z: values.indexOf(Math.min(...values)), F_inf: Math.min(...values), F_beta: course.softMinimum(values, beta), mean: meanFree(),
      };
    };
    const changed = () => {
      const now = state();
      numbers.show({ z: String(now.z + 1), inf: now.F_inf, beta: now.F_beta, mean: now.mean });
      plane.redraw();
      bars.redraw();
    };
    // one step of k-means, or of the mixture's EM: each prototype goes to the mean of what it counts for
    const step = () => {
      const sums = prototypes.map(() => [0, 0, 0]);
      for (const [x, y] of DATA) {
        shares(energies(prototypes, x, y), shown, beta).forEach((share, k) => {
          sums[k][0] += share * x;
          sums[k][1] += share * y;
          sums[k][2] += share;
        });
      }
      const before = prototypes;
      prototypes = sums.map(([x, y, count], k) => (count > 1e-12 ? [x / count, y / count] : before[k]));
      changed();
      return Math.max(...prototypes.map(([x, y], k) => Math.hypot(x - before[k][0], y - before[k][1])));
    };
    const move = (name, x, y) => {
      const place = [course.clamp(x, ...X), course.clamp(y, ...Y)];
      if (name === "y") point = place;
      else prototypes[Number(name.slice(1))] = place;
      running = false;
      changed();
    };
    plane.draggable(
      () => [{ name: "y", x: point[0], y: point[1] }, ...prototypes.map(([x, y], k) => ({ name: `w${k}`, x, y }))], move, 0.05,
    );
    const setBeta = (value) => {
      beta = value;
      changed();
    };
    const slider = course.slider({
      label: "β", low: 0.1, high: 100, value: beta, logarithmic: true, format: (v) => course.rounded(v), onInput: setBeta,
    });
    const choice = course.choice({
      label: "Landscape:", options: { inf: "F_inf: k-means", beta: "F_β: mixture" }, value: shown,
      onChange(key) {
        shown = key;
        changed();
      },
    });
    const figure = course.figure(
      course.panel(plane, "Drag y, and the prototypes w. Small points: the data, in the colour of the prototype that counts most."),
      course.panel(bars, "E(y, z) of each z, and what each counts; dashed: the free energy."),
    );
    figure.dataset.columns = "wide-narrow";
    root.append(
      figure,
      course.controls(slider.root, choice.root),
      course.controls(
        course.button("One step of learning", () => step()),
        course.button("Run", () => (running = true)),
        course.button("From the start", () => {
          [prototypes, running] = [START.map((place) => [...place]), false];
          changed();
        }),
      ),
      numbers.root,
    );
    course.whileSeen(root, () => {
      if (running && ++waited % 12 === 0 && step() < 1e-4) running = false;
    });
    changed();
    return { plot: plane, state, step, move, setBeta: (v) => ((slider.value = v), setBeta(v)) };
  };
})();
