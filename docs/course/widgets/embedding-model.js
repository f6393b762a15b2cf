// A joint embedding of a small world: s = Enc(x), s' is predicted by s + Pred(s, move). Its loss and its gradients.
(() => {
  "use strict";
  const { course } = window;
  const WIDTH = 16, SMALLEST_VARIANCE = 1e-4; // as in drivecast.worldmodel.joint_embedding.objective
  const TURN = 1.5, SLIP = 0.15; // radians: the largest move, and what chance adds to it
  const KEPT = [0.999, 0.992]; // of each number of a background that drifts, from one moment to the next

  // A moment and the next: a place on a ring, turned by the move, and a background of two numbers beside it.
  // Every number that is seen, and the move, has a variance of one.
  function example(draw, drifts) {
    const angle = 2 * Math.PI * draw.uniform(), turn = TURN * (2 * draw.uniform() - 1);
    const after = angle + turn + SLIP * draw.normal();
    const background = [draw.normal(), draw.normal()];
    const later = background.map((value, k) => (drifts ? KEPT[k] * value + Math.sqrt(1 - KEPT[k] ** 2) * draw.normal() : draw.normal()));
    const seen = (at, beside) => [Math.SQRT2 * Math.cos(at), Math.SQRT2 * Math.sin(at), ...beside];
    return { angle, move: (turn * Math.sqrt(3)) / TURN, before: seen(angle, background), after: seen(after, later) };
  }

  // Two layers with tanh between them.
  class Network {
    constructor(into, out, draw) {
      this.layers = [new course.Layer(into, WIDTH, draw), new course.Layer(WIDTH, out, draw)];
    }

    forward(x) {
      const inner = this.layers[0].forward(x).map(Math.tanh);
      return { x, inner, y: this.layers[1].forward(inner) };
    }

    // adds to the gradient of the weights; returns that of the input
    backward({ x, inner }, above) {
      const atInner = new Float64Array(WIDTH), below = new Float64Array(x.length);
      this.layers[1].backward(inner, above, atInner);
      this.layers[0].backward(x, atInner.map((g, k) => g * (1 - inner[k] * inner[k])), below);
      return below;
    }
  }

  // mean and unbiased covariance matrix of points of the plane
  function moments(points) {
    const mean = [0, 1].map((k) => points.reduce((sum, point) => sum + point[k], 0) / points.length);
    const of = (j, k) => points.reduce((sum, point) => sum + (point[j] - mean[j]) * (point[k] - mean[k]), 0) / (points.length - 1);
    return { mean, xx: of(0, 0), xy: of(0, 1), yy: of(1, 1) };
  }

  class JointEmbedding {
    constructor(seed) {
      const draw = course.random(seed);
      this.encoder = new course.Layer(4, 2, draw);
      this.predictor = new Network(3, 2, draw);
      this.inverse = new Network(4, 1, draw);
      this.steps = 0;
    }

    get layers() {
      return [this.encoder, ...this.predictor.layers, ...this.inverse.layers];
    }

    encode(x) {
      return this.encoder.forward(x);
    }

    predict(s, move) {
      return this.predictor.forward([...s, move]).y.map((change, k) => s[k] + change);
    }

    // The terms of the loss, each with its gradient times its weight; `loss` is their weighted sum. The network that tells
    // the move is always trained, as a probe: where its term is off, its gradient ends at the embeddings.
    learn(batch, weights) {
      const count = batch.length, both = 2 * count;
      const s = batch.map(({ before }) => this.encode(before)), t = batch.map(({ after }) => this.encode(after));
      const all = [...s, ...t], upward = all.map(() => new Float64Array(2)); // gradients of the embeddings
      const terms = { prediction: 0, inverse: 0 };

      batch.forEach(({ move }, n) => {
        const kept = this.predictor.forward([...s[n], move]);
        const off = kept.y.map((change, k) => s[n][k] + change - t[n][k]);
        terms.prediction += (off[0] ** 2 + off[1] ** 2) / both;
        const g = off.map((value) => (weights.prediction * value) / count);
        const below = this.predictor.backward(kept, g);
        const told = this.inverse.forward([...s[n], ...t[n]]), wrong = told.y[0] - move;
        terms.inverse += wrong ** 2 / count;
        const ends = this.inverse.backward(told, [((weights.inverse || 1) * 2 * wrong) / count]);
        for (let k = 0; k < 2; k++) {
          upward[n][k] += g[k] + below[k] + (weights.inverse && ends[k]);
          upward[count + n][k] += -g[k] + (weights.inverse && ends[2 + k]);
        }
      });

      const { mean, xx, xy, yy } = moments(all);
      const deviations = [xx, yy].map((variance) => Math.sqrt(variance + SMALLEST_VARIANCE));
      terms.variance = deviations.reduce((sum, one) => sum + Math.max(0, 1 - one), 0) / 2;
      terms.covariance = xy * xy; // two entries off the diagonal over two dimensions
      all.forEach((point, n) => {
        const away = [point[0] - mean[0], point[1] - mean[1]];
        for (let k = 0; k < 2; k++) {
          if (deviations[k] < 1) upward[n][k] -= (weights.variance * away[k]) / (2 * deviations[k] * (both - 1));
          upward[n][k] += (weights.covariance * 2 * xy * away[1 - k]) / (both - 1);
        }
      });

      const unused = new Float64Array(4); // the gradient of what is seen
      batch.forEach(({ before, after }, n) => {
        this.encoder.backward(before, upward[n], unused);
        this.encoder.backward(after, upward[count + n], unused);
      });
      terms.loss = Object.entries(weights).reduce((sum, [name, weight]) => sum + weight * terms[name], 0);
      return terms;
    }

    step(batch, weights, rate) {
      const terms = this.learn(batch, weights);
      this.steps++;
      for (const layer of this.layers) layer.adam(rate, 1, this.steps);
      return terms;
    }
  }

  // Standard deviations along the principal axes, the larger first, the direction of the first, and the effective rank:
  // exp of the entropy of the singular values' shares (Roy & Vetterli 2007).
  function shape(points) {
    const { mean, xx, xy, yy } = moments(points);
    const middle = (xx + yy) / 2, apart = Math.hypot((xx - yy) / 2, xy);
    const spread = [middle + apart, middle - apart].map((variance) => Math.sqrt(Math.max(0, variance)));
    const sum = spread[0] + spread[1], shares = spread.map((one) => one / sum).filter((share) => share > 0);
    const rank = Math.exp(-shares.reduce((entropy, share) => entropy + share * Math.log(share), 0));
    return { mean, spread, direction: 0.5 * Math.atan2(2 * xy, xx - yy), rank: sum * Math.sqrt(points.length) > 1e-6 ? rank : 1 };
  }

  // Share of the variance of `targets` (rows) that a linear readout of the embeddings explains, where noise of standard
  // deviation `noise` lies on these: what is shrunken cannot be read.
  function readable(points, targets, noise) {
    const { mean, xx, xy, yy } = moments(points), count = points.length - 1;
    const [a, d] = [xx + noise * noise, yy + noise * noise], determinant = a * d - xy * xy;
    let explained = 0, whole = 0;
    for (let k = 0; k < targets[0].length; k++) {
      const level = targets.reduce((sum, row) => sum + row[k], 0) / targets.length;
      let [p, q] = [0, 0];
      targets.forEach((row, n) => {
        p += ((points[n][0] - mean[0]) * (row[k] - level)) / count;
        q += ((points[n][1] - mean[1]) * (row[k] - level)) / count;
        whole += (row[k] - level) ** 2 / count;
      });
      explained += (p * p * d - 2 * p * q * xy + q * q * a) / determinant;
    }
    return explained / whole;
  }

  Object.assign(course, { JointEmbedding, embeddingExample: example, embeddingShape: shape, embeddingReadable: readable });
})();
