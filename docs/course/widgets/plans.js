// A plan of one number, u: how far to the left the car is when it comes to the place that is blocked.
(() => {
  "use strict";
  const { course } = window;
  const U = [6.2, -6.2]; // m; what is to the left is drawn on the left
  const LANE_M = 4, CAR_M = [4.8, 2];
  const BLOCKED_AT_M = 38, BY_M = 32, AHEAD_M = 50;
  const STARTS = [-5.2, -2.4, -0.4, 0.7, 2, 5];
  const RATE = 0.12, SAMPLES = 80, ELITES = 20, FIRST_MEAN = 0, FIRST_STD = 2.4, LANE_STD = 0.9;

  const contact = (u, blocked) => 5 * Math.exp(-(((u - blocked) / 1.7) ** 2));
  const lanes = (u) => 0.3 * (1 - Math.cos((2 * Math.PI * u) / LANE_M));
  const effort = (u) => 0.015 * u * u;
  const edge = (u) => 2 * Math.max(0, Math.abs(u) - 4.8) ** 2;
  const cost = (u, blocked) => contact(u, blocked) + lanes(u) + effort(u) + edge(u);
  const slope = (u, blocked) =>
    (-2 * (u - blocked) * contact(u, blocked)) / 1.7 ** 2 +
    ((0.3 * 2 * Math.PI) / LANE_M) * Math.sin((2 * Math.PI * u) / LANE_M) +
    0.03 * u +
    4 * Math.sign(u) * Math.max(0, Math.abs(u) - 4.8);

  course.widgets.plans = (root) => {
    let blocked = 0, method = "gradient", starts = [...STARTS], plans = [], trails = [], distributions = [], rounds = 0;
    let seed = 0, draw = null, running = false, waited = 0;

    const begin = () => {
      [draw, rounds, running] = [course.random(++seed), 0, false]; // other samples each time
      plans = [...starts];
      trails = starts.map((u) => [u]);
      const means = method === "lanes" ? [LANE_M, 0, -LANE_M] : [FIRST_MEAN];
      distributions = means.map((mean) => ({ mean, std: method === "lanes" ? LANE_STD : FIRST_STD, samples: [], elites: [] }));
      changed();
    };
    const step = () => {
      rounds++;
      if (method === "gradient") {
        plans = plans.map((u) => u - course.clamp(RATE * slope(u, blocked), -0.4, 0.4));
        plans.forEach((u, index) => trails[index].push(u));
      } else {
        for (const one of distributions) {
          one.samples = Array.from({ length: SAMPLES }, () => one.mean + one.std * draw.normal());
          one.elites = [...one.samples].sort((a, b) => cost(a, blocked) - cost(b, blocked)).slice(0, ELITES);
          one.mean = one.elites.reduce((a, b) => a + b) / ELITES;
          one.std = Math.sqrt(one.elites.reduce((sum, u) => sum + (u - one.mean) ** 2, 0) / ELITES);
        }
      }
      changed();
    };
    const chosen = () => {
      const all = method === "gradient" ? plans : distributions.map((one) => one.mean);
      return all.reduce((best, u) => (cost(u, blocked) < cost(best, blocked) ? u : best));
    };
    const colourOf = (colours) => (method === "gradient" ? colours.point : colours.second);

    const along = (u) => Array.from({ length: 41 }, (_, k) => {
      const x = (k / 40) * AHEAD_M, t = Math.min(x / BY_M, 1);
      return [u * t * t * (3 - 2 * t), x];
    });
    const car = (plot, u, x, fill) => {
      const [length, width] = CAR_M;
      const corners = [[u - width / 2, x - length / 2], [u + width / 2, x - length / 2], [u + width / 2, x + length / 2], [u - width / 2, x + length / 2]];
      plot.path(corners, null, 0, [], fill);
    };
    const street = new course.Plot({
      aspect: 1.75, x: U, y: [-5, AHEAD_M], label: "The road, seen from above, with the plans",
      draw(plot, colours) {
        plot.path([[6, -5], [6, AHEAD_M], [-6, AHEAD_M], [-6, -5]], null, 0, [], colours.road);
        for (const u of [6, -6]) plot.path([[u, -5], [u, AHEAD_M]], colours.faint, 1.5);
        for (const u of [2, -2]) plot.path([[u, -5], [u, AHEAD_M]], colours.faint, 1.2, [10, 12]);
        const colour = colourOf(colours), best = chosen();
        if (method === "gradient") plans.forEach((u) => plot.path(along(u), `${colour}99`, 1.5));
        else {
          distributions.forEach(({ samples, elites, mean }) => {
            samples.forEach((u) => plot.path(along(u), `${colour}22`, 1));
            elites.forEach((u) => plot.path(along(u), `${colour}88`, 1));
            plot.path(along(mean), colour, 1.5, [6, 4]);
          });
        }
        plot.path(along(best), colour, 4);
        car(plot, 0, 0, colours.ink);
        car(plot, blocked, BLOCKED_AT_M, colours.car);
        plot.handle("blocked", blocked, BLOCKED_AT_M, colours.inferred, colours);
        plot.text("left", 5.9, 0, colours.faint, { dy: -8 });
        plot.text("right", -5.9, 0, colours.faint, { align: "right", dy: -8 });
      },
    });
    const curve = new course.Plot({
      aspect: 2.3, x: U, y: [-0.4, 6.6], margin: [8, 6, 22, 6], label: "What a plan costs, over u",
      draw(plot, colours) {
        const colour = colourOf(colours);
        const points = Array.from({ length: 249 }, (_, k) => [U[0] - k * 0.05, cost(U[0] - k * 0.05, blocked)]);
        plot.path([[U[0], -0.4], ...points, [U[1], -0.4]], null, 0, [], `${colours.heat[1]}33`);
        plot.path(points, colours.curve, 2);
        if (method === "gradient") {
          trails.forEach((trail) => plot.path(trail.map((u) => [u, cost(u, blocked)]), `${colour}88`, 3));
          plans.forEach((u, index) => plot.handle(`u${index}`, u, cost(u, blocked), colour, colours));
        } else {
          distributions.forEach(({ samples, elites, mean, std }) => {
            const bell = Array.from({ length: 121 }, (_, k) => [mean + std * (k / 20 - 3), -0.4 + 1.5 * Math.exp(-((k / 20 - 3) ** 2) / 2)]);
            plot.path(bell, colour, 1.2, [], `${colour}33`);
            samples.forEach((u) => plot.dot(u, cost(u, blocked), 3, `${colour}55`));
            elites.forEach((u) => plot.dot(u, cost(u, blocked), 4.5, colour, colours.outline, 1));
            plot.path([[mean, -0.4], [mean, cost(mean, blocked)]], colour, 1.2, [5, 4]);
            plot.dot(mean, cost(mean, blocked), 8, colour, colours.outline, 2.5);
          });
        }
        for (const u of [4, 2, 0, -2, -4]) plot.text(`${String(u).replace("-", "−")} m`, u, -0.4, colours.faint, { align: "center", dy: 14, size: 11 });
      },
    });

    const numbers = course.numbers({ rounds: "steps", u: "plan that is driven, u", cost: "it costs", least: "least cost there is" });
    const least = () => Math.min(...Array.from({ length: 1241 }, (_, k) => cost(-6.2 + k * 0.01, blocked)));
    const state = () => ({
      blocked, method, rounds, starts: [...starts], plans: [...plans], costs: plans.map((u) => cost(u, blocked)),
      distributions: distributions.map(({ mean, std, elites }) => ({ mean, std, elites: [...elites], cost: cost(mean, blocked) })),
      chosen: chosen(), chosenCost: cost(chosen(), blocked), least: least(),
    });
    function changed() {
      const now = state();
      numbers.show({ rounds: String(rounds), u: `${now.chosen.toFixed(2).replace("-", "−")} m`, cost: now.chosenCost, least: now.least });
      street.redraw();
      curve.redraw();
    }
    const block = (u) => {
      blocked = course.clamp(u, -5, 5);
      begin();
    };
    street.draggable(() => [{ name: "blocked", x: blocked, y: BLOCKED_AT_M }], (name, u) => block(u), -0.2);
    curve.draggable(
      () => (method === "gradient" ? plans.map((u, index) => ({ name: `u${index}`, x: u, y: cost(u, blocked) })) : []),
      (name, u) => {
        const index = Number(name.slice(1));
        starts[index] = plans[index] = course.clamp(u, -6, 6);
        trails[index] = [plans[index]];
        running = false;
        changed();
      }, -0.1, 26,
    );
    const choose = (key) => {
      method = key;
      begin();
    };
    const choice = course.choice({
      label: "Search:", value: method, onChange: choose,
      options: { gradient: "gradient, six starts", cem: "CEM, one distribution", lanes: "CEM, one for each lane" },
    });
    root.append(
      course.figure(
        course.panel(street, "From above; the car below drives upwards. Drag the one that stands in the way. Thick: the plan that would be driven."),
        course.panel(curve, "The cost of each u. Points of the gradient can be dragged to start elsewhere; of CEM the large point is the mean."),
      ),
      course.controls(choice.root),
      course.controls(course.button("One step", step), course.button("Run", () => (running = true)), course.button("From the start", () => {
        starts = [...STARTS];
        begin();
      })),
      numbers.root,
    );
    course.whileSeen(root, () => {
      const pace = method === "gradient" ? 3 : 40;
      if (running && ++waited % pace === 0) {
        step();
        if (rounds >= (method === "gradient" ? 80 : 12)) running = false;
      }
    });
    begin();
    return { plot: street, curve, state, step, choose: choice.choose, block };
  };
})();
