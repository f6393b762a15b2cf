// A point and an ellipse: E(y, z) = |y - dec(z)|² with dec(z) = (a cos z, b sin z), z an angle.
(() => {
  "use strict";
  const { course } = window;
  const A = 1.6, B = 0.8; // half axes
  const ANGLES = 720;
  const X = [-2.4, 2.4], Y = [-1.6, 1.6];
  const COLUMNS = 120, ROWS = 80, ANGLES_OF_THE_MAP = 180;

  const decoded = (z) => [A * Math.cos(z), B * Math.sin(z)];
  const energy = (x, y, z) => (x - A * Math.cos(z)) ** 2 + (y - B * Math.sin(z)) ** 2;
  const energies = (x, y, count) => Float64Array.from({ length: count }, (_, k) => energy(x, y, (2 * Math.PI * k) / count));

  // the best of all angles, then Newton's method from there
  function inferred(x, y) {
    const all = energies(x, y, ANGLES);
    let z = (2 * Math.PI * all.indexOf(Math.min(...all))) / ANGLES;
    for (let i = 0; i < 8; i++) {
      const [c, s] = [Math.cos(z), Math.sin(z)];
      const slope = 2 * (x - A * c) * A * s - 2 * (y - B * s) * B * c;
      const bend = 2 * (A * A * s * s + (x - A * c) * A * c + B * B * c * c + (y - B * s) * B * s);
      if (bend <= 1e-9) break;
      const next = z - course.clamp(slope / bend, -0.01, 0.01);
      if (energy(x, y, next) > energy(x, y, z)) break;
      z = next;
    }
    return z;
  }

  course.widgets.ellipse = (root) => {
    let point = [1.35, 1.05], beta = 8, shown = "inf";
    let map = null, mapOf = "";

    const valueAt = (x, y) => {
      const all = energies(x, y, ANGLES_OF_THE_MAP);
      return shown === "inf" ? Math.min(...all) : course.softMinimum(all, beta);
    };

    const plane = new course.Plot({
      aspect: 1.5, x: X, y: Y, label: "The free energy of every point of the plane, and the ellipse that the decoder draws",
      draw(plot, colours) {
        const key = `${shown} ${shown === "inf" ? "" : beta}`;
        if (key !== mapOf) [map, mapOf] = [course.onGrid(plot, COLUMNS, ROWS, valueAt), key];
        const least = Math.min(...map);
        plot.heat(map, COLUMNS, ROWS, (value) => Math.sqrt((value - least) / 2.6));
        const levels = [0.05, 0.2, 0.45, 0.8, 1.25, 1.8, 2.45].map((level) => level + least);
        plot.contours(map, COLUMNS, ROWS, levels, course.isDark() ? "#ffffff22" : "#00000026");
        const curve = Array.from({ length: 181 }, (_, k) => decoded((k * Math.PI) / 90));
        plot.path(curve, colours.curve, 1.5);
        const z = inferred(...point);
        plot.path([point, decoded(z)], colours.point, 2, [5, 4]);
        plot.path([[0, 0], decoded(z)], colours.inferred, 1, [2, 3]);
        plot.dot(...decoded(z), 6, colours.inferred, colours.outline);
        plot.text("dec(z)", ...decoded(z), colours.inferred, { dx: decoded(z)[0] > 1 ? -10 : 10, dy: 14, align: decoded(z)[0] > 1 ? "right" : "left", bold: true });
        plot.handle("y", ...point, colours.point, colours);
        plot.text("y", ...point, colours.point, { dx: 12, dy: -10, size: 14, bold: true });
      },
    });

    const overZ = new course.Plot({
      aspect: 1.25, x: [0, 360], y: [-0.15, 6], margin: [10, 8, 24, 26], label: "The energy of the point over z",
      draw(plot, colours) {
        const all = energies(...point, 361);
        const top = Math.max(...all) * 1.08;
        plot.yRange = [-0.03 * top, top];
        const soft = course.softMinimum(energies(...point, ANGLES), beta), least = Math.min(...all);
        // the weight exp(-beta E) of each z, as a share of the largest
        const weight = Array.from(all, (value, k) => [k, top * 0.45 * Math.exp(-beta * (value - least))]);
        plot.path([[0, 0], ...weight, [360, 0]], null, 0, [], `${colours.second}44`);
        plot.path(weight, colours.second, 1);
        plot.path([[0, 0], [360, 0]], colours.line, 1);
        plot.path(Array.from(all, (value, k) => [k, value]), colours.curve, 2);
        plot.path([[0, soft], [360, soft]], colours.second, 1.2, [5, 4]);
        const z = ((inferred(...point) * 180) / Math.PI + 360) % 360;
        plot.dot(z, least, 6, colours.inferred, colours.outline);
        for (const degrees of [0, 90, 180, 270, 360]) {
          plot.text(`${degrees}°`, degrees, 0, colours.faint, { align: degrees === 0 ? "left" : degrees === 360 ? "right" : "center", dy: 16, size: 11 });
        }
        plot.text("E", 0, top, colours.faint, { dx: -6, dy: 8, align: "right" });
        plot.text("F_β", 215, soft, colours.second, { align: "center", dy: -9, size: 12, bold: true });
      },
    });

    const numbers = course.numbers({ z: "inferred z", inf: "F_inf", beta: "F_β", gap: "F_β − F_inf" });
    const state = () => {
      const z = inferred(...point);
      const found = { y: [...point], beta, shown, z, F_inf: energy(...point, z), F_beta: course.softMinimum(energies(...point, ANGLES), beta) };
      return found;
    };
    const changed = () => {
      const now = state();
      const degrees = (((now.z * 180) / Math.PI + 360) % 360).toFixed(0);
      numbers.show({ z: `${degrees}°`, inf: now.F_inf, beta: now.F_beta, gap: now.F_beta - now.F_inf });
      plane.redraw();
      overZ.redraw();
    };
    const move = (name, x, y) => {
      point = [course.clamp(x, ...X), course.clamp(y, ...Y)];
      changed();
    };
    plane.draggable(() => [{ name: "y", x: point[0], y: point[1] }], move, 0.05);
    const setBeta = (value) => {
      beta = value;
      changed();
    };
    const slider = course.slider({
      label: "β", low: 0.1, high: 100, value: beta, logarithmic: true, format: (v) => course.rounded(v), onInput: setBeta,
    });
    const choice = course.choice({
      label: "Landscape:", options: { inf: "F_inf", beta: "F_β" }, value: shown,
      onChange(key) {
        shown = key;
        changed();
      },
    });
    const figure = course.figure(
      course.panel(plane, "Drag y. The bluer, the lower the free energy."),
      course.panel(overZ, "E(y, z) over z; violet: the weight exp(−βE) of each z, and F_β."),
    );
    figure.dataset.columns = "wide-narrow";
    root.append(figure, course.controls(slider.root, choice.root), numbers.root);
    changed();
    return { plot: plane, state, move: (x, y) => move("y", x, y), setBeta: (v) => ((slider.value = v), setBeta(v)) };
  };
})();
