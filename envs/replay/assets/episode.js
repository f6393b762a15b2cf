// The episode that the page carries, and what can be read from it at a time between two steps.

const NOTHING = -(2 ** 31);

async function unpack(base64) {
  if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old: it has no DecompressionStream");
  const packed = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const headerEnd = 4 + new DataView(bytes.buffer).getUint32(0, true);
  const episode = JSON.parse(new TextDecoder().decode(bytes.subarray(4, headerEnd)));
  episode.values = {};
  let at = headerEnd;
  for (const { name, shape, scale, order } of episode.arrays) {
    const count = shape.reduce((a, b) => a * b, 1);
    episode.values[name] = restore(bytes.subarray(at, at + 4 * count), count, shape, scale, order);
    at += 4 * count;
  }
  return episode;
}

// Undo the differences and the byte planes of `pack` in page.py.
function restore(planes, count, shape, scale, order) {
  const counts = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    counts[i] = planes[i] | (planes[count + i] << 8) | (planes[2 * count + i] << 16) | (planes[3 * count + i] << 24);
  }
  const row = shape[0] ? count / shape[0] : 0;
  for (let n = 0; n < order; n++) for (let i = row; i < count; i++) counts[i] = (counts[i] + counts[i - row]) | 0;
  return Float32Array.from(counts, (value) => (value === NOTHING ? NaN : value * scale));
}

class Episode {
  constructor(unpacked) {
    Object.assign(this, unpacked);
    this.carCount = this.cars.length;
    this.braking = this.brakeLights();
    this.course = this.smooth((i) => this.values.heading[i * this.carCount], 15);
    this.middle = this.smooth((i) => this.values.road_middle_m[i], 15);
    this.bounds = this.driven();
  }

  static async of(base64) { return new Episode(await unpack(base64)); }

  get duration_s() { return this.steps * this.dt_s; }

  // Car `car` at fractional step `t`; null where it is not seen.
  car(car, t) {
    const n = this.carCount, v = this.values;
    const i = Math.min(Math.floor(t), this.steps), share = t - i, a = i * n + car, b = a + n;
    if (!v.valid[a]) return null;
    const follow = share > 0 && i < this.steps && v.valid[b] ? share : 0;
    const mix = (values) => values[a] + (follow ? follow * (values[b] - values[a]) : 0);
    return { car, x: mix(v.x), y: mix(v.y), heading: mix(v.heading), speed: mix(v.speed), braking: this.braking[a],
      length: this.cars[car].length_m, width: this.cars[car].width_m };
  }

  scene(t) {
    const cars = [];
    for (let car = 0; car < this.carCount; car++) { const seen = this.car(car, t); if (seen) cars.push(seen); }
    return cars;
  }

  // The newest imagination at step `t`, unless it is stale.
  imagined(t) {
    let newest = null;
    for (const each of this.imaginations) if (each.step <= t + 1e-6) newest = each;
    return newest && (t - newest.step) * this.dt_s <= 1.5 ? newest : null;
  }

  reading(name, step) { return this.values[name][Math.min(step, this.values[name].length - 1)]; }

  brakeLights() {
    const { speed } = this.values, n = this.carCount, lit = new Uint8Array(speed.length);
    for (let i = n; i < speed.length; i++) lit[i] = (speed[i] - speed[i - n]) / this.dt_s < -1.2 ? 1 : 0;
    return lit;
  }

  // A value per step without its wiggles, for a camera that follows the road rather than the steering.
  smooth(read, reach) {
    const smoothed = new Float32Array(this.steps + 1);
    for (let i = 0; i <= this.steps; i++) {
      let sum = 0, count = 0;
      for (let j = Math.max(0, i - reach); j <= Math.min(this.steps, i + reach); j++) { sum += read(j); count++; }
      smoothed[i] = sum / count;
    }
    return smoothed;
  }

  driven() {
    const { x, y, valid } = this.values, box = { left: Infinity, right: -Infinity, low: Infinity, high: -Infinity };
    for (let i = 0; i < x.length; i++) {
      if (!valid[i]) continue;
      box.left = Math.min(box.left, x[i]); box.right = Math.max(box.right, x[i]);
      box.low = Math.min(box.low, y[i]); box.high = Math.max(box.high, y[i]);
    }
    return box;
  }
}
