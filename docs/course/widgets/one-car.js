// One car's future under the shipped world model: its energy, the inferred latents and the free energies.
(() => {
  "use strict";
  const { course } = window;
  const SEARCH_STEPS = 16, DRAWS = 100, DRAWS_A_FRAME = 5;
  const COLUMNS = 16, ROWS = 15; // of the map of ends
  const MAP_ALONG_M = [-32, 23]; // of the ends, from the recorded one
  const BASES = {
    recorded: "as it drove", expected: "as the model expects", braking: "brakes", left: "goes left", off: "leaves the road",
  };

  // how much of the end's move, and of the bend's, there is at a share of the time; and the slopes
  const rise = (t) => t ** 3 * (10 - 15 * t + 6 * t * t), riseSlope = (t) => 30 * t * t * (1 - t) ** 2;
  const hump = (t) => 64 * t ** 3 * (1 - t) ** 3, humpSlope = (t) => 192 * t * t * (1 - t) ** 2 * (1 - 2 * t);

  course.widgets["one-car"] = (root) => {
    const data = window.courseOneCar;
    const model = new course.CarModel(data.model, data.scene);
    const { scene, steps } = model;
    const seconds = steps * model.dt_s, now = model.state(scene.cars[0], model.now);
    const lanes = scene.lanes.centres_m, half = scene.lanes.width_m / 2;
    const nothing = () => Array.from({ length: model.stretches }, () => new Float64Array(model.latent_dims));

    const moving = (states) =>
      states.map(({ x, y, heading, speed }) => ({ x, y, vx: speed * Math.cos(heading), vy: speed * Math.sin(heading) }));
    const simple = (acceleration, left) =>
      Array.from({ length: steps }, (_, k) => {
        const time = (k + 1) * model.dt_s, share = (k + 1) / steps;
        return {
          x: now.x + now.speed * time + (acceleration * time * time) / 2, vx: now.speed + acceleration * time,
          y: now.y + left * rise(share), vy: (left * riseSlope(share)) / seconds,
        };
      });
    const bases = {
      recorded: moving(Array.from({ length: steps }, (_, k) => model.state(scene.cars[0], model.now + k + 1))),
      expected: moving(model.under(nothing()).states), // what z = 0 gives
      braking: simple(-4, 0),
      left: simple(0, lanes[1] - lanes[2]),
      off: simple(0, lanes.at(-1) - half - 3 - now.y),
    };

    const likeliest = model.under(nothing());

    let base = "recorded", end = [0, 0], bend = [0, 0], beta = 3;
    const futureOf = (shift) =>
      bases[base].map(({ x, y, vx, vy }, k) => {
        const t = (k + 1) / steps;
        const fast = vx + (shift[0] * riseSlope(t) + bend[0] * humpSlope(t)) / seconds;
        const aside = vy + (shift[1] * riseSlope(t) + bend[1] * humpSlope(t)) / seconds;
        return {
          x: x + shift[0] * rise(t) + bend[0] * hump(t), y: y + shift[1] * rise(t) + bend[1] * hump(t),
          heading: Math.atan2(aside, fast), speed: Math.hypot(fast, aside),
        };
      });

    // ---- the search, a little in each frame

    let future = futureOf(end), best = null, guess = Infinity, free = NaN, starts = [], draws = null, work = "search", left = SEARCH_STEPS;
    const begin = () => {
      future = futureOf(end);
      const guessed = model.guessed(future);
      guess = model.energy(guessed, future);
      const kept = best && { rollout: best.rollout, energy: model.energy(best.rollout, future) };
      best = kept && kept.energy < guess ? kept : { rollout: guessed, energy: guess };
      starts = kept && kept.energy < guess ? [guessed, model.under(nothing())] : [model.under(nothing())];
      [free, draws, work, left] = [NaN, null, "search", SEARCH_STEPS];
      show();
    };
    const byDraws = () => {
      const values = draws.logs, most = Math.max(...values);
      return -(most + Math.log(values.reduce((sum, log) => sum + Math.exp(log - most), 0) / values.length)) / beta;
    };
    const restart = () => {
      [free, draws] = [NaN, null];
      if (work === "done") work = "draws";
      show();
    };
    let candidate = null; // of another start
    const frame = () => {
      if (work === "search") {
        const from = candidate ?? best;
        const next = model.improved(from.rollout, future, 1);
        const stuck = from.energy - next.energy < 1e-4 * Math.max(1, from.energy) || --left <= 0;
        if (candidate) candidate = next;
        else best = next;
        if (stuck) {
          if (candidate && candidate.energy < best.energy) best = candidate;
          const start = starts.pop();
          candidate = start ? { rollout: start, energy: model.energy(start, future) } : null;
          left = SEARCH_STEPS;
          if (!candidate) work = "draws";
        }
        show();
      } else if (work === "draws") {
        draws ??= { source: course.random(1), logs: [], bend: null };
        const some = model.freeEnergy(best, future, beta, DRAWS_A_FRAME, draws.source, draws);
        draws.logs.push(...some.draws.map(({ energy, density }) => -beta * energy - density));
        free = byDraws();
        if (draws.logs.length >= DRAWS) work = "done";
        show();
      } else {
        const until = performance.now() + 12;
        while (map.next < map.order.length && performance.now() < until) fillMap();
        if (map.next === map.order.length) show();
      }
    };

    // ---- the map: F_inf of other ends, cell by cell from the base's own, each search begun from a neighbour's z

    const map = { values: null, found: [], still: [], order: [], next: 0, place: null };
    const clearMap = () => {
      const last = bases[base].at(-1);
      map.place = { x: MAP_ALONG_M.map((m) => last.x + m), y: [lanes.at(-1) - half - 1, lanes[0] + half + 1] };
      map.values = new Float64Array(COLUMNS * ROWS).fill(NaN);
      map.found = new Array(COLUMNS * ROWS).fill(null);
      map.still = new Array(COLUMNS * ROWS).fill(false);
      const away = Array.from(map.values, (_, cell) => Math.hypot(...shiftOf(cell).map((m, k) => m / [5, 2][k])));
      const once = Array.from(map.values.keys()).sort((one, other) => away[one] - away[other]);
      [map.order, map.next] = [[...once, ...once.slice().reverse(), ...once], 0]; // as guessed, then searched twice
    };
    // how far the end of a cell is from the base's
    const shiftOf = (cell) => {
      const { x, y } = map.place, last = bases[base].at(-1), column = cell % COLUMNS, row = Math.floor(cell / COLUMNS);
      return [
        x[0] + ((column + 0.5) / COLUMNS) * (x[1] - x[0]) - last.x,
        y[0] + ((row + 0.5) / ROWS) * (y[1] - y[0]) - last.y,
      ];
    };
    const fillMap = () => {
      const cell = map.order[map.next++], there = futureOf(shiftOf(cell)), column = cell % COLUMNS;
      const beside = [column && cell - 1, column + 1 < COLUMNS && cell + 1, cell - COLUMNS, cell + COLUMNS];
      const starts = [cell, ...beside.filter((n) => n !== false && n !== 0)].map((n) => map.found[n]).filter(Boolean);
      if (!map.found[cell]) starts.push(model.guessed(there), likeliest);
      const tried = starts.map((rollout) => ({ rollout, energy: model.energy(rollout, there) }));
      const start = tried.reduce((one, other) => (other.energy < one.energy ? other : one));
      if (start.rollout === map.found[cell] && map.still[cell]) return;
      const found = map.next > map.values.length ? model.improved(start.rollout, there, 1) : start;
      if (found !== start) map.still[cell] = start.energy - found.energy < 0.01 * start.energy;
      [map.values[cell], map.found[cell]] = [found.energy, found.rollout];
      street.redraw();
    };

    // ---- what is drawn

    const street = new course.Plot({
      aspect: 2.1, x: [-22, 100], y: [lanes.at(-1) - half - 4, lanes[0] + half + 4], margin: [2, 2, 2, 2],
      label: "The road from above with the car, its future and what the model can draw",
      draw(plot, colours) {
        const [low, high] = [lanes.at(-1) - half, lanes[0] + half], [x0, x1] = plot.xRange;
        plot.path([[x0, low], [x1, low], [x1, high], [x0, high]], null, 0, [], colours.road);
        if (map.values && map.values.some((value) => !Number.isNaN(value))) drawMap(plot, colours);
        for (const y of [low, high]) plot.path([[x0, y], [x1, y]], colours.faint, 1.5);
        for (const centre of lanes.slice(1)) plot.path([[x0, centre + half], [x1, centre + half]], colours.faint, 1, [12, 14]);
        scene.cars.slice(1).forEach((car) => {
          const [here, then] = [model.state(car, model.now), model.state(car, model.now + steps)];
          plot.path([[here.x, here.y], [then.x, then.y]], `${colours.car}88`, 1.2);
          box(plot, then, car, null, colours.car);
          box(plot, here, car, colours.car, null);
        });
        const past = Array.from({ length: model.now + 1 }, (_, k) => model.state(scene.cars[0], k));
        plot.path(past.map(({ x, y }) => [x, y]), colours.point, 1.5);
        box(plot, now, scene.cars[0], colours.point, colours.outline);
        plot.path([[now.x, now.y], ...future.map(({ x, y }) => [x, y])], colours.point, 3);
        const drawn = best.rollout.states;
        plot.path([[now.x, now.y], ...drawn.map(({ x, y }) => [x, y])], colours.inferred, 2, [6, 4]);
        for (let k = model.latent_hold_steps; k <= steps; k += model.latent_hold_steps) {
          plot.dot(drawn[k - 1].x, drawn[k - 1].y, 4, colours.inferred, colours.outline, 1.5);
        }
        const [mid, last] = [future[steps / 2 - 1], future.at(-1)];
        plot.handle("half", mid.x, mid.y, colours.second, colours);
        plot.handle("end", last.x, last.y, colours.point, colours);
      },
    });
    const box = (plot, { x, y, heading }, car, fill, line) => {
      const [c, s] = [Math.cos(heading), Math.sin(heading)], [l, w] = [car.length_m / 2, car.width_m / 2];
      const corners = [[l, w], [-l, w], [-l, -w], [l, -w], [l, w]].map(([a, b]) => [x + a * c - b * s, y + a * s + b * c]);
      plot.path(corners, line, 1, [], fill);
    };
    const drawMap = (plot, colours) => {
      const { x, y } = map.place, known = map.values;
      const [low, high] = [Math.log(Math.max(3, Math.min(...known.filter((value) => !Number.isNaN(value))))), Math.log(1500)];
      const area = new Proxy(plot, {
        get: (target, key) =>
          key === "inner"
            ? { left: plot.px(x[0]), top: plot.py(y[1]), width: plot.px(x[1]) - plot.px(x[0]), height: plot.py(y[0]) - plot.py(y[1]) }
            : Reflect.get(target, key),
      });
      plot.context.globalAlpha = 0.85;
      area.heat(known, COLUMNS, ROWS, (value) => (Math.log(Math.max(value, 3)) - low) / (high - low));
      plot.context.globalAlpha = 1;
      if (!known.some(Number.isNaN)) {
        area.contours(known, COLUMNS, ROWS, [10, 30, 100, 300, 1000], course.isDark() ? "#ffffff33" : "#00000033");
      }
    };

    const bars = new course.Plot({
      aspect: 2.1, x: [0, model.stretches * (model.latent_dims + 1.5)], y: [-3.6, 3.6], margin: [6, 6, 20, 24],
      label: "The inferred latents of each second",
      draw(plot, colours) {
        const all = best.rollout.latents.flatMap((z) => Array.from(z));
        const most = Math.max(3, ...all.map(Math.abs)) * 1.1;
        plot.yRange = [-most, most];
        for (const level of [-2, 0, 2]) {
          plot.path([[0, level], [plot.xRange[1], level]], colours.line, 1, level ? [3, 4] : []);
          plot.text(String(level).replace("-", "−"), 0, level, colours.faint, { align: "right", dx: -5, size: 11 });
        }
        best.rollout.latents.forEach((z, stretch) => {
          const from = stretch * (model.latent_dims + 1.5) + 0.75;
          z.forEach((value, d) => plot.path([[from + d + 0.12, 0], [from + d + 0.12, value], [from + d + 0.88, value], [from + d + 0.88, 0]], null, 0, [], colours.inferred));
          plot.text(`second ${stretch + 1}`, from + model.latent_dims / 2, -most, colours.faint, { align: "center", dy: 13, size: 11 });
        });
      },
    });
    const parts = new course.Plot({
      aspect: 2.1, x: [0, 4], y: [0, 1], margin: [18, 6, 20, 6], label: "What the energy consists of",
      draw(plot, colours) {
        const { off, codes } = model.parts(best.rollout, future), values = [off, ...codes];
        plot.yRange = [0, Math.max(...values, 1)];
        plot.path([[0, 0], [4, 0]], colours.line, 1);
        values.forEach((value, k) => {
          plot.path([[k + 0.15, 0], [k + 0.15, value], [k + 0.85, value], [k + 0.85, 0]], null, 0, [], k ? colours.inferred : colours.point);
          plot.text(course.rounded(value), k + 0.5, value, colours.ink, { align: "center", dy: -9, size: 12 });
          plot.text(k ? `z, second ${k}` : "errors", k + 0.5, 0, colours.faint, { align: "center", dy: 13, size: 11 });
        });
      },
    });

    const numbers = course.numbers({ guess: "E, z as guessed", inf: "F_inf", beta: "F_β", end: "end is moved by", work: "search" });
    const show = () => {
      const signed = (value) => `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(1)}`;
      numbers.show({
        guess, inf: best.energy, beta: free, end: `${signed(end[0])} m, ${signed(end[1])} m`,
        work: { search: "for z …", draws: "integral …", done: map.next < map.order.length ? "map …" : "done" }[work],
      });
      [street, bars, parts].forEach((plot) => plot.redraw());
    };
    const move = (name, x, y) => {
      const t = name === "half" ? 0.5 : 1, there = bases[base][Math.round(t * steps) - 1];
      if (name === "half") {
        bend = [x - there.x - end[0] * rise(0.5), y - there.y - end[1] * rise(0.5)].map((v, k) => course.clamp(v, -[12, 6][k], [12, 6][k]));
        clearMap();
      } else end = [course.clamp(x - there.x, -45, 35), course.clamp(y - there.y, -16, 16)];
      candidate = null;
      begin();
    };
    const choose = (key) => {
      [base, end, bend, best, candidate] = [key, [0, 0], [0, 0], null, null];
      clearMap();
      begin();
    };
    street.draggable(() => {
      const [mid, last] = [future[steps / 2 - 1], future.at(-1)];
      return [{ name: "end", x: last.x, y: last.y }, { name: "half", x: mid.x, y: mid.y }];
    }, move, 0.5);
    const setBeta = (value) => {
      beta = value;
      restart();
    };
    const slider = course.slider({
      label: "β", low: 0.3, high: 30, value: beta, logarithmic: true, format: (v) => course.rounded(v), onInput: setBeta,
    });
    const choice = course.choice({ label: "The car", options: BASES, value: base, onChange: choose });
    const second = course.figure(
      course.panel(bars, "The inferred z: eight numbers for each second."),
      course.panel(parts, "What F_inf consists of: errors that are left, and what z costs in each second."),
    );
    second.style.setProperty("--columns", 2);
    second.style.marginTop = "0.8rem";
    root.append(
      course.figure(course.panel(street, "Orange: past and future of the car; drag its end and its middle (violet). Green: the nearest that the model can draw, with its seconds. Grey: the others now, and outlined in 3 s. The road is drawn 2.3 times as wide as it is. Blue: ends of low F_inf, searched cell by cell while you look.")),
      course.controls(choice.root),
      course.controls(slider.root),
      numbers.root,
      second,
    );
    clearMap();
    begin();
    course.whileSeen(root, frame);

    // all of the search at once; what it found, for the tests
    const settle = () => {
      best = model.minimum(future, SEARCH_STEPS, [best.rollout.latents]);
      const found = model.freeEnergy(best, future, beta, DRAWS, course.random(1));
      [free, work, candidate] = [found.value, "done", null];
      show();
      return {
        base, end: [...end], beta, guess, future, F_inf: best.energy, F_beta: free, draws: found.draws,
        latents: best.rollout.latents.map((z) => Array.from(z)),
        guessed: model.guessed(future).latents.map((z) => Array.from(z)),
      };
    };
    const energy = (latents) => model.energy(model.under(latents.map((z) => Float64Array.from(z))), future);
    return { plot: street, future: () => future, settle, energy, choose: choice.choose, move, setBeta: (v) => ((slider.value = v), setBeta(v)), state: () => ({ base, end: [...end], bend: [...bend], guess, F_inf: best.energy, F_beta: free, work, mapDone: map.next >= map.order.length }) };
  };
})();
