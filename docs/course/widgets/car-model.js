// The world model for one car on a straight road whose others move as recorded: worldmodel/forecaster/model.py and
// worldmodel/energy/model_energy.py in plain JavaScript. tests/docs/test_course_pages.py holds it to them.
(() => {
  "use strict";
  const { course } = window;
  const { clamp } = course;

  const LOOK_S = 0.2, LANDMARKS = 5, SLOTS = 7;
  const LEADER = 0, SECOND = 1, FOLLOWER = 2, LEFT_AHEAD = 3, LEFT_BEHIND = 4, RIGHT_AHEAD = 5, RIGHT_BEHIND = 6;
  const QUADRATIC_UP_TO = 3;

  function floats(base64) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return Float64Array.from(new Float32Array(bytes.buffer));
  }

  function linear(weight, bias, x) {
    const out = bias.length, into = x.length, y = new Float64Array(out);
    for (let o = 0, at = 0; o < out; o++) {
      let sum = bias[o];
      for (let i = 0; i < into; i++, at++) sum += weight[at] * x[i];
      y[o] = sum;
    }
    return y;
  }
  const joined = (...parts) => {
    const all = new Float64Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  };
  const rectified = (x) => x.map((value) => Math.max(value, 0));
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));

  // scene: what course_scene.py wrote; car 0 is the one. stored: weights, settings and usual errors of the model.
  class CarModel {
    constructor(stored, scene) {
      this.w = Object.fromEntries(Object.entries(stored.weights).map(([name, text]) => [name, floats(text)]));
      Object.assign(this, stored.config, { scale: stored.scale, scene });
      this.share = Array.from(this.w.persistence, sigmoid);
      this.variance = this.share.map((share) => 1 - Math.min(share * share, 0.9999));
      this.now = scene.history_steps - 1; // index of the present
      this.steps = scene.cars[0].x_m.length - 1 - this.now;
      this.stretches = Math.ceil(this.steps / this.latent_hold_steps);
      const one = scene.cars[0];
      [this.length, this.width] = [one.length_m, one.width_m];
      this.start = this.observed();
    }

    state(car, at) {
      return { x: car.x_m[at], y: car.y_m[at], heading: car.heading_rad[at], speed: car.speed_mps[at] };
    }

    // ---- what the car sees, at step `at` of the recording

    neighbours(own, at) {
      const found = new Array(SLOTS).fill(null), distance = new Array(SLOTS).fill(Infinity);
      const offer = (slot, one) => {
        if (Math.abs(one.along) < distance[slot]) [found[slot], distance[slot]] = [one, Math.abs(one.along)];
      };
      for (const car of this.scene.cars.slice(1)) {
        const other = this.state(car, at);
        const along = other.x - own.x, left = other.y - own.y;
        if (Math.abs(left) >= 6 || along >= 120 || along <= -80) continue;
        const side = along >= 0 ? 1 : -1;
        const one = {
          along, left, length: car.length_m, width: car.width_m, speed: other.speed,
          gap: side * along - (car.length_m + this.length) / 2,
          closing: -side * (other.speed * Math.cos(other.heading) - own.speed * Math.cos(own.heading)),
          drift: other.speed * Math.sin(other.heading) - own.speed * Math.sin(own.heading),
        };
        const inTheWay = Math.abs(left) < (car.width_m + this.width) / 2 + 0.3;
        if (inTheWay && along >= 0) {
          if (along < distance[LEADER]) {
            [found[SECOND], distance[SECOND]] = [found[LEADER], distance[LEADER]];
            [found[LEADER], distance[LEADER]] = [one, along];
          } else offer(SECOND, one);
        } else if (inTheWay) offer(FOLLOWER, one);
        else if (left > 0) offer(along >= 0 ? LEFT_AHEAD : LEFT_BEHIND, one);
        else offer(along >= 0 ? RIGHT_AHEAD : RIGHT_BEHIND, one);
      }
      return found;
    }

    features(own, before, neighbours) {
      const { centres_m: centres, width_m: width, speed_limit_mps: limit } = this.scene.lanes;
      let lane = 0;
      centres.forEach((centre, index) => {
        if (Math.abs(own.y - centre) < Math.abs(own.y - centres[lane])) lane = index;
      });
      const error = Math.sin(own.heading);
      const all = [
        own.speed / 15,
        Math.exp(-own.speed / 2),
        (limit - own.speed) / 10,
        clamp((own.speed - before.speed) / LOOK_S, -8, 8) / 3,
        clamp(Math.sin(own.heading - before.heading) / LOOK_S, -1, 1) * 10,
        (own.y - centres[lane]) / 2,
        width - 4,
        error * 10,
        error * own.speed,
        Number(lane > 0), // lanes are given from the left
        Number(lane + 1 < centres.length),
        0, // the lane goes on
        (this.length - 5) / 5,
        this.width - 2,
      ];
      for (const other of neighbours) {
        if (!other) {
          all.push(0, 0, 0, 0, 0, 0, 0, 0, 0);
          continue;
        }
        const gap = Math.max(other.gap, 0);
        all.push(
          other.along / 40, Math.exp(-gap / 12), other.closing / 5, clamp(other.closing / Math.max(gap, 1), -2, 2),
          other.left / 4, other.drift, other.speed / 15, (other.length - 5) / 5, 1,
        );
      }
      return all;
    }

    // most acceleration, least and most curvature: worldmodel/forecaster/keeping_clear.py
    bounds(own, neighbours) {
      let most = Infinity, mostLeft = 1e3, leastLeft = -1e3, onLeft = false, onRight = false;
      const drift = own.speed * Math.sin(own.heading);
      neighbours.forEach((other, slot) => {
        if (!other) return;
        const apart = Math.abs(other.left) - (other.width + this.width) / 2;
        if ([LEADER, SECOND, LEFT_AHEAD, RIGHT_AHEAD].includes(slot)) {
          const then = apart - Math.max(-Math.sign(other.left) * other.drift, 0);
          if (apart < 0 || (then < 0 && other.gap > 0)) {
            const leader = Math.max(own.speed - other.closing, 0);
            const gap = Math.max(other.gap - other.closing * LOOK_S - 0.5, 0);
            most = Math.min(most, Math.max((Math.sqrt(leader * leader + 12 * gap + 1e-6) - own.speed) / LOOK_S, -8));
          }
        }
        if (other.gap - Math.max(other.closing, 0) < 1 && apart > -0.1) {
          const towards = Math.sqrt(2 * Math.max(apart - 0.1, 0) + 1e-6), theirs = drift + other.drift;
          if (other.left > 0) [onLeft, mostLeft] = [true, Math.min(mostLeft, Math.max(theirs + towards, -0.5))];
          else [onRight, leastLeft] = [true, Math.max(leastLeft, Math.min(theirs - towards, 0.5))];
        }
      });
      const middle = (mostLeft + leastLeft) / 2;
      [mostLeft, leastLeft] = [Math.max(mostLeft, middle), Math.min(leastLeft, middle)];
      const squared = Math.max(own.speed, 2) ** 2, hardest = 3 / squared;
      return [
        most,
        onRight ? Math.min((leastLeft - drift) / (squared * LOOK_S), hardest) : -Infinity,
        onLeft ? Math.max((mostLeft - drift) / (squared * LOOK_S), -hardest) : Infinity,
      ];
    }

    // ---- the recurrent network

    remembered(x, h) {
      const size = this.hidden;
      const into = linear(this.w["cell.weight_ih"], this.w["cell.bias_ih"], x);
      const kept = linear(this.w["cell.weight_hh"], this.w["cell.bias_hh"], h);
      const next = new Float64Array(size);
      for (let i = 0; i < size; i++) {
        const reset = sigmoid(into[i] + kept[i]), update = sigmoid(into[size + i] + kept[size + i]);
        const fresh = Math.tanh(into[2 * size + i] + reset * kept[2 * size + i]);
        next[i] = (1 - update) * fresh + update * h[i];
      }
      return next;
    }

    // `own` at step `at`, last seen as `before`
    looked(own, before, at, hidden) {
      const neighbours = this.neighbours(own, at);
      const embedded = rectified(linear(this.w["embed.weight"], this.w["embed.bias"], this.features(own, before, neighbours)));
      return { own, embedded, hidden: this.remembered(embedded, hidden), bounds: this.bounds(own, neighbours) };
    }

    observed() {
      const every = this.decide_steps;
      let memory = { hidden: new Float64Array(this.hidden) }, before = null;
      for (let at = this.now % every; at <= this.now; at += every) {
        const own = this.state(this.scene.cars[0], at);
        memory = this.looked(own, before ?? own, at, memory.hidden);
        before = own;
      }
      return memory;
    }

    motion({ embedded, hidden, bounds }, z) {
      const decoded = rectified(linear(this.w["decoder_in.weight"], this.w["decoder_in.bias"], joined(embedded, hidden, z)));
      const [acceleration, curvature] = linear(this.w["decoder_out.weight"], this.w["decoder_out.bias"], decoded);
      return [
        Math.min(8 * Math.tanh(acceleration / 8), bounds[0]),
        Math.min(Math.max(0.2 * Math.tanh(curvature / 20), bounds[1]), bounds[2]),
      ];
    }

    // `steps` ahead under one latent, from step `from` of the future on; states on the way
    advanced(memory, z, from, steps) {
      const dt = this.dt_s, states = [];
      for (let step = 0; step < steps; step += this.decide_steps) {
        const [acceleration, curvature] = this.motion(memory, z);
        let { x, y, heading, speed } = memory.own;
        for (let inner = 0; inner < this.decide_steps; inner++) {
          const next = Math.max(speed + acceleration * dt, 0), turn = curvature * speed * dt;
          const way = ((speed + next) / 2) * dt;
          x += way * Math.cos(heading + turn / 2);
          y += way * Math.sin(heading + turn / 2);
          heading += turn;
          speed = next;
          states.push({ x, y, heading, speed });
        }
        memory = this.looked(states.at(-1), memory.own, this.now + from + step + this.decide_steps, memory.hidden);
      }
      return { memory, states };
    }

    // ---- latents

    // -log p(z | last), without its constant
    code(z, last) {
      return 0.5 * z.reduce((sum, value, d) => sum + (last ? (value - this.share[d] * last[d]) ** 2 / this.variance[d] : value * value), 0);
    }

    posterior({ own, hidden }, target, last) {
      const columns = [], [c, s] = [Math.cos(own.heading), Math.sin(own.heading)];
      for (let landmark = 1; landmark <= LANDMARKS; landmark++) {
        const step = Math.max(Math.round((landmark * target.length) / LANDMARKS), 1), then = target[step - 1];
        const dx = then.x - own.x - own.speed * c * step * this.dt_s, dy = then.y - own.y - own.speed * s * step * this.dt_s;
        columns.push(clamp(dx * c + dy * s, -10, 10), clamp(2 * (c * dy - s * dx), -5, 5), then.speed - own.speed, 1);
      }
      const seen = joined(hidden, columns, last ?? new Float64Array(this.latent_dims));
      const inner = rectified(linear(this.w["posterior_net.0.weight"], this.w["posterior_net.0.bias"], seen));
      const mean = linear(this.w["posterior_net.2.weight"], this.w["posterior_net.2.bias"], inner).slice(0, this.latent_dims);
      return last ? mean.map((value, d) => this.share[d] * last[d] + Math.sqrt(this.variance[d]) * value) : mean;
    }

    // ---- the energy

    // A rollout under `choose(stretch, memory, last)`, from stretch `first` of `rollout` on where one is given.
    unrolled(choose, rollout = null, first = 0) {
      const memories = rollout ? rollout.memories.slice(0, first + 1) : [this.start];
      const latents = rollout ? rollout.latents.slice(0, first) : [];
      const states = rollout ? rollout.states.slice(0, first * this.latent_hold_steps) : [];
      for (let stretch = first; stretch < this.stretches; stretch++) {
        const z = choose(stretch, memories[stretch], latents[stretch - 1] ?? null);
        const from = stretch * this.latent_hold_steps;
        const on = this.advanced(memories[stretch], z, from, Math.min(this.latent_hold_steps, this.steps - from));
        latents.push(z);
        states.push(...on.states);
        memories.push(on.memory);
      }
      return { memories, latents, states };
    }

    under(latents) {
      return this.unrolled((stretch) => latents[stretch]);
    }

    guessed(future) {
      const hold = this.latent_hold_steps;
      return this.unrolled((stretch, memory, last) => this.posterior(memory, future.slice(stretch * hold, (stretch + 1) * hold), last));
    }

    // errors along and to the left in usual ones, of each landmark
    errors(rollout, future) {
      const every = Math.round(LOOK_S / this.dt_s), found = [];
      for (let step = every - 1, landmark = 0; step < this.steps; step += every, landmark++) {
        const there = future[step], here = rollout.states[step];
        const [c, s] = [Math.cos(there.heading), Math.sin(there.heading)], dx = here.x - there.x, dy = here.y - there.y;
        found.push((dx * c + dy * s) / this.scale.along_m[landmark], (c * dy - s * dx) / this.scale.left_m[landmark]);
      }
      return found;
    }

    get seconds() {
      return LOOK_S * Math.floor(this.steps / Math.round(LOOK_S / this.dt_s));
    }

    parts(rollout, future) {
      const errors = this.errors(rollout, future), limit = QUADRATIC_UP_TO ** 2;
      let off = 0;
      for (let k = 0; k < errors.length; k += 2) off += limit * (Math.sqrt(1 + (errors[k] ** 2 + errors[k + 1] ** 2) / limit) - 1);
      const codes = rollout.latents.map((z, stretch) => this.code(z, rollout.latents[stretch - 1] ?? null));
      return { off: off / this.seconds, codes: codes.map((code) => code / this.seconds) };
    }

    energy(rollout, future) {
      const { off, codes } = this.parts(rollout, future);
      return codes.reduce((a, b) => a + b, off);
    }

    // ---- inference

    // Slopes of the errors by the latents (differences), and with them T times the energy's gradient and its bend
    // (Gauss-Newton, the robust errors weighed as they count).
    bend(rollout, future) {
      const D = this.latent_dims, N = D * this.stretches, h = 1e-4, limit = QUADRATIC_UP_TO ** 2;
      const errors = this.errors(rollout, future), slopes = [];
      for (let n = 0; n < N; n++) {
        const stretch = Math.floor(n / D);
        const moved = this.unrolled((k) => {
          if (k !== stretch) return rollout.latents[k];
          const z = rollout.latents[k].slice();
          z[n % D] += h;
          return z;
        }, rollout, stretch);
        slopes.push(this.errors(moved, future).map((value, k) => (value - errors[k]) / h));
      }
      const weights = errors.map((_, k) => {
        const pair = k - (k % 2);
        return 1 / Math.sqrt(1 + (errors[pair] ** 2 + errors[pair + 1] ** 2) / limit);
      });
      const gradient = new Float64Array(N), matrix = Array.from({ length: N }, () => new Float64Array(N));
      for (let a = 0; a < N; a++) {
        for (let k = 0; k < errors.length; k++) gradient[a] += weights[k] * slopes[a][k] * errors[k];
        for (let b = 0; b <= a; b++) {
          let sum = 0;
          for (let k = 0; k < errors.length; k++) sum += weights[k] * slopes[a][k] * slopes[b][k];
          matrix[a][b] = matrix[b][a] = sum;
        }
      }
      rollout.latents.forEach((z, stretch) => {
        const last = rollout.latents[stretch - 1] ?? null;
        for (let d = 0; d < D; d++) {
          const n = stretch * D + d, share = this.share[d], precision = last ? 1 / this.variance[d] : 1;
          const away = (z[d] - (last ? share * last[d] : 0)) * precision;
          gradient[n] += away;
          matrix[n][n] += precision;
          if (last) {
            gradient[n - D] -= share * away;
            matrix[n - D][n - D] += share * share * precision;
            matrix[n][n - D] -= share * precision;
            matrix[n - D][n] -= share * precision;
          }
        }
      });
      return { gradient, matrix };
    }

    moved(latents, step, share) {
      return latents.map((z, stretch) => z.map((value, d) => value - share * step[stretch * this.latent_dims + d]));
    }

    // Levenberg and Marquardt's steps down from a rollout
    improved(rollout, future, steps) {
      let best = { rollout, energy: this.energy(rollout, future) }, damping = 1e-2;
      for (let n = 0; n < steps; n++) {
        const { gradient, matrix } = this.bend(best.rollout, future), before = best.energy;
        for (let trial = 0; trial < 4; trial++) {
          const step = solved(matrix, gradient, damping);
          const there = this.under(this.moved(best.rollout.latents, step, 1)), energy = this.energy(there, future);
          if (energy < best.energy) {
            best = { rollout: there, energy };
            damping = Math.max(damping / 5, 1e-6);
            break;
          }
          damping *= 8;
        }
        if (before - best.energy < 1e-7 * Math.max(1, before)) break;
      }
      return best;
    }

    // min over z, from the encoder's guess, from z = 0 and from `more` latents
    minimum(future, steps = 12, more = []) {
      const nothing = Array.from({ length: this.stretches }, () => new Float64Array(this.latent_dims));
      const starts = [this.guessed(future), this.under(nothing), ...more.map((latents) => this.under(latents))];
      return starts
        .map((start) => this.improved(start, future, steps))
        .reduce((best, one) => (one.energy < best.energy ? one : best));
    }

    // -1/beta log integral exp(-beta E) dz: importance sampling from the normal density about the minimum that bends as E
    freeEnergy(best, future, beta, samples, draw, kept = {}) {
      kept.factor ??= cholesky(this.bend(best.rollout, future).matrix.map((row) => row.map((value) => (value * beta) / this.seconds)), 0);
      const { factor } = kept, N = factor.length;
      const logDet = 2 * factor.reduce((sum, row, n) => sum + Math.log(row[n]), 0);
      const logs = [], draws = [];
      for (let n = 0; n < samples; n++) {
        const noise = Float64Array.from({ length: N }, () => draw.normal());
        const latents = this.moved(best.rollout.latents, fromTheLeft(factor, noise), 1);
        const energy = this.energy(this.under(latents), future);
        const density = 0.5 * (logDet - N * Math.log(2 * Math.PI) - noise.reduce((sum, value) => sum + value * value, 0));
        logs.push(-beta * energy - density);
        draws.push({ latents: latents.map((z) => Array.from(z)), energy, density });
      }
      const most = Math.max(...logs);
      const value = -(most + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - most), 0) / samples)) / beta;
      return { value, draws };
    }
  }

  // L of A = L Lᵀ, the diagonal made greater by a share of it
  function cholesky(matrix, damping) {
    const N = matrix.length, L = Array.from({ length: N }, () => new Float64Array(N));
    for (let i = 0; i < N; i++) {
      for (let j = 0; j <= i; j++) {
        let sum = matrix[i][j] * (i === j ? 1 + damping : 1);
        for (let k = 0; k < j; k++) sum -= L[i][k] * L[j][k];
        L[i][j] = i === j ? Math.sqrt(Math.max(sum, 1e-12)) : sum / L[j][j];
      }
    }
    return L;
  }

  // x of Lᵀ x = b
  function fromTheLeft(L, b) {
    const N = b.length, x = new Float64Array(N);
    for (let i = N - 1; i >= 0; i--) {
      let sum = b[i];
      for (let k = i + 1; k < N; k++) sum -= L[k][i] * x[k];
      x[i] = sum / L[i][i];
    }
    return x;
  }

  function solved(matrix, b, damping) {
    const L = cholesky(matrix, damping), N = b.length, y = new Float64Array(N);
    for (let i = 0; i < N; i++) {
      let sum = b[i];
      for (let k = 0; k < i; k++) sum -= L[i][k] * y[k];
      y[i] = sum / L[i][i];
    }
    return fromTheLeft(L, y);
  }

  course.CarModel = CarModel;
})();
