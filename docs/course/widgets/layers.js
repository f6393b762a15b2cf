// What the widgets that learn are made of: linear layers with their gradients, lowered by Adam.
(() => {
  "use strict";
  const { course } = window;
  const KEPT = [0.9, 0.99]; // of the running means of Adam

  class Layer {
    constructor(into, out, draw) {
      Object.assign(this, { into, out });
      this.weights = Float64Array.from({ length: out * (into + 1) }, (_, k) =>
        k % (into + 1) === into ? 0 : draw.normal() / Math.sqrt(into),
      );
      [this.gradient, this.first, this.second] = [0, 1, 2].map(() => new Float64Array(this.weights.length));
    }

    forward(x) {
      const { into, out, weights } = this, y = new Float64Array(out);
      for (let o = 0; o < out; o++) {
        let sum = weights[o * (into + 1) + into];
        for (let i = 0; i < into; i++) sum += weights[o * (into + 1) + i] * x[i];
        y[o] = sum;
      }
      return y;
    }

    // adds to the gradient of the weights, and to that of the input
    backward(x, above, below) {
      const { into, out, weights, gradient } = this;
      for (let o = 0; o < out; o++) {
        for (let i = 0; i < into; i++) {
          gradient[o * (into + 1) + i] += above[o] * x[i];
          below[i] += above[o] * weights[o * (into + 1) + i];
        }
        gradient[o * (into + 1) + into] += above[o];
      }
    }

    // step number `time`, by a gradient that was summed over `count` examples
    adam(rate, count, time) {
      const { weights, gradient, first, second } = this, [b1, b2] = KEPT.map((kept) => 1 - kept ** time);
      for (let k = 0; k < weights.length; k++) {
        const g = gradient[k] / count;
        first[k] = KEPT[0] * first[k] + (1 - KEPT[0]) * g;
        second[k] = KEPT[1] * second[k] + (1 - KEPT[1]) * g * g;
        weights[k] -= (rate * (first[k] / b1)) / (Math.sqrt(second[k] / b2) + 1e-8);
        gradient[k] = 0;
      }
    }
  }
  course.Layer = Layer;
})();
