// The traffic from above.

const TRAIL_S = 2.5, PLAN_DOT_S = 0.5, FULL_COLOUR_MPS = 7, RING_M = 0.8;

class Scene {
  constructor(canvas, episode, camera, palette) {
    Object.assign(this, { canvas, episode, camera, palette });
    this.context = canvas.getContext("2d");
    this.colourBy = "speed";
    this.shows = { plan: true, futures: true, trails: true, weighed: true, attended: true };
    this.picked = null;  // the row of the weighed plan that is pointed at
    this.paths = {};
    for (const name of ["surfaces", "closed"]) this.paths[name] = tracePaths(episode.road[name], true);
    for (const name of ["solid", "dashed"]) this.paths[name] = tracePaths(episode.road[name], false);
  }

  draw(t) {
    const { canvas, context, camera, episode } = this, density = window.devicePixelRatio || 1;
    const [width, height] = fit(canvas, density);
    camera.aim(t, width, height);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = this.palette("verge");
    context.fillRect(0, 0, canvas.width, canvas.height);
    camera.apply(context, density);
    this.pixel = 1 / camera.scale;  // in metres
    this.drawVerge();
    this.drawRoad();
    const cars = episode.scene(t).filter((car) => camera.sees(car.x, car.y, 60));
    const imagined = episode.imagined(t);
    if (this.shows.trails) for (const car of cars) this.drawTrail(car, t);
    if (imagined && this.shows.futures) this.drawFutures(imagined, t);
    if (imagined && imagined.weighed && this.shows.weighed) this.drawWeighed(imagined, t);
    if (imagined && this.shows.plan) this.drawPlan(imagined, t);
    if (imagined && imagined.attended && this.shows.attended) this.drawAttended(imagined, t);
    for (const car of cars) if (car.car) this.drawCar(car, cars, t);
    if (cars.length && cars[0].car === 0) this.drawCar(cars[0], cars, t);
    this.drawCrash(t);
    context.setTransform(density, 0, 0, density, 0, 0);
    this.drawScaleBar(width, height);
    this.cars = cars;
  }

  // Faint marks on the ground every 5 m, so that one sees the ego move.
  drawVerge() {
    const { context, camera } = this, [width, height] = camera.size, step = 5;
    const corners = [[0, 0], [width, 0], [0, height], [width, height]].map(([px, py]) => camera.toWorld(px, py));
    const xs = corners.map((c) => c[0]), ys = corners.map((c) => c[1]);
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    if ((right - left) * (high - low) / step ** 2 > 4000) return;
    context.fillStyle = this.palette("verge-tick");
    const size = Math.max(0.22, 1.4 * this.pixel);
    for (let x = Math.floor(left / step) * step; x <= right; x += step) {
      for (let y = Math.floor(low / step) * step; y <= high; y += step) context.fillRect(x - size / 2, y - size / 2, size, size);
    }
  }

  drawRoad() {
    const { context, paths, pixel } = this, thin = Math.max(0.15, 1.1 * pixel);
    context.fillStyle = context.strokeStyle = this.palette("asphalt");
    context.lineJoin = "round";
    context.lineWidth = 1.2;
    context.stroke(paths.surfaces);  // a hard shoulder, and no seams between lanes
    context.fill(paths.surfaces, "nonzero");
    context.fillStyle = this.palette("closed");
    context.globalAlpha = 0.3;
    context.fill(paths.closed);
    context.globalAlpha = 0.95;
    context.strokeStyle = this.palette("marking");
    context.lineWidth = thin;
    context.stroke(paths.solid);
    context.globalAlpha = 0.7;
    context.setLineDash([3, 6]);
    context.stroke(paths.dashed);
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  drawTrail(car, t) {
    const { context, episode, pixel } = this, n = episode.carCount, { x, y, valid } = episode.values;
    const past = Math.round(TRAIL_S / episode.dt_s), now = Math.floor(t), ego = car.car === 0;
    context.strokeStyle = this.colour(car);
    context.lineWidth = Math.max(ego ? 0.5 : 0.3, (ego ? 2 : 1.2) * pixel);
    context.lineCap = "butt";
    const pieces = 6;
    for (let piece = 0; piece < pieces; piece++) {
      const from = now - past + Math.round((past * piece) / pieces), to = now - past + Math.round((past * (piece + 1)) / pieces);
      context.globalAlpha = ((piece + 1) / pieces) * (ego ? 0.7 : 0.38);
      context.beginPath();
      let open = false;
      for (let i = Math.max(0, from); i <= to; i++) {
        const at = i * n + car.car;
        if (!valid[at]) { open = false; continue; }
        if (open) context.lineTo(x[at], y[at]); else context.moveTo(x[at], y[at]);
        open = true;
      }
      if (piece === pieces - 1 && open) context.lineTo(car.x, car.y);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  drawFutures({ step, stride, cars }, t) {
    const { context, episode, pixel } = this, values = episode.values[`futures${step}`];
    const [points, samples] = episode.arrays.find((a) => a.name === `futures${step}`).shape;
    const first = Math.max(0, Math.ceil((t - step) / stride - 1 + 1e-6));  // points already past are not drawn
    context.strokeStyle = this.palette("imagined");
    context.lineWidth = Math.max(0.16, 1.1 * pixel);
    context.globalAlpha = Math.min(0.6, 0.16 + 1.2 / Math.max(samples, 1));
    context.lineCap = "round";
    cars.forEach((index, place) => {
      const car = episode.car(index, t);
      if (!car || !this.camera.sees(car.x, car.y, 120)) return;
      context.beginPath();
      for (let sample = 0; sample < samples; sample++) {
        context.moveTo(car.x, car.y);
        for (let point = first; point < points; point++) {
          const at = 2 * ((point * samples + sample) * cars.length + place);
          context.lineTo(values[at], values[at + 1]);
        }
      }
      context.stroke();
    });
    context.globalAlpha = 1;
  }

  // The plans that lost, from where the ego is now; those that hit somebody in the colour of a crash.
  drawWeighed({ step, weighed }, t) {
    const { context, episode, pixel, picked } = this, values = episode.values[`weighed${step}`], ego = episode.car(0, t);
    if (!ego) return;
    const count = weighed.plans.length, points = values.length / 2 / count;
    const first = Math.max(0, Math.ceil((t - step + weighed.ago) / weighed.every - 1 + 1e-6));
    context.lineCap = context.lineJoin = "round";
    for (let plan = count - 1; plan >= 0; plan--) {
      if (plan === 0 && picked !== 0) continue;  // the chosen one is drawn as the plan
      context.strokeStyle = this.palette(plan === picked ? "ego" : weighed.plans[plan].cost.contact > 0 ? "crash" : "weighed");
      context.globalAlpha = plan === picked ? 1 : 0.85;
      context.lineWidth = Math.max(plan === picked ? 0.6 : 0.2, (plan === picked ? 3.5 : 1.3) * pixel);
      context.setLineDash(plan === picked ? [] : [1.6, 1.2]);
      context.beginPath();
      context.moveTo(ego.x, ego.y);
      for (let point = first; point < points; point++) {
        const at = 2 * (point * count + plan);
        context.lineTo(values[at], values[at + 1]);
      }
      context.stroke();
    }
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  drawPlan({ step }, t) {
    const { context, episode, pixel } = this, plan = episode.values[`plan${step}`], ego = episode.car(0, t);
    if (!ego) return;
    const first = Math.max(0, Math.ceil(t - step - 1 + 1e-6)), count = plan.length / 2, every = Math.max(1, Math.round(PLAN_DOT_S / episode.dt_s));
    context.strokeStyle = context.fillStyle = this.palette("ego");
    context.lineWidth = Math.max(0.4, 2.4 * pixel);
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(ego.x, ego.y);
    for (let i = first; i < count; i++) context.lineTo(plan[2 * i], plan[2 * i + 1]);
    context.stroke();
    const radius = Math.max(0.5, 3 * pixel);
    for (let i = every - 1; i < count; i += every) {
      if (i < first) continue;
      context.beginPath();
      context.arc(plan[2 * i], plan[2 * i + 1], radius, 0, 7);
      context.fillStyle = this.palette("ego");
      context.fill();
      context.beginPath();
      context.arc(plan[2 * i], plan[2 * i + 1], radius * 0.5, 0, 7);
      context.fillStyle = "#fff";
      context.fill();
    }
  }

  // A ring around whom the driver's concept is about, and a line there from the ego.
  drawAttended({ attended }, t) {
    const { context, episode, pixel } = this, ego = episode.car(0, t);
    if (!ego) return;
    context.strokeStyle = this.palette("attended");
    context.lineCap = "butt";
    for (const index of attended) {
      const car = episode.car(index, t);
      if (!car) continue;
      context.lineWidth = Math.max(0.2, 1.3 * pixel);
      context.setLineDash([Math.max(1.6, 4 * pixel), Math.max(1.2, 3 * pixel)]);
      context.beginPath();
      context.moveTo(ego.x, ego.y);
      context.lineTo(car.x, car.y);
      context.stroke();
      context.setLineDash([]);
      const away = Math.max(RING_M, 3 * pixel), long = Math.max(car.length, 4 * pixel) + 2 * away, wide = Math.max(car.width, 2.2 * pixel) + 2 * away;
      context.save();
      context.translate(car.x, car.y);
      context.rotate(car.heading);
      context.lineWidth = Math.max(0.35, 2.2 * pixel);
      box(context, -long / 2, -wide / 2, long, wide, Math.min(0.55, wide / 4) + away);
      context.stroke();
      context.restore();
    }
  }

  colour(car) {
    const { episode, palette } = this;
    if (car.car === 0) return palette("ego");
    if (this.colourBy === "role") return palette(car.car === this.leader ? "leader" : "neutral");
    const ego = this.egoSpeed;
    const difference = Math.max(-1, Math.min(1, (car.speed - ego) / FULL_COLOUR_MPS));
    return blend(palette("neutral"), palette(difference < 0 ? "slower" : "faster"), Math.abs(difference));
  }

  prepare(t) {
    const ego = this.episode.car(0, t);
    this.egoSpeed = ego ? ego.speed : 0;
    this.leader = this.episode.reading("leader", Math.floor(t));
  }

  drawCar(car, cars, t) {
    const { context, episode, pixel } = this, ego = car.car === 0;
    const long = Math.max(car.length, 4 * pixel), wide = Math.max(car.width, 2.2 * pixel);
    const crashed = this.isCrash(t) && (ego || car.car === episode.collided_with);
    const paint = crashed && !ego ? this.palette("crash") : this.colour(car);
    context.save();
    context.translate(car.x, car.y);
    context.rotate(car.heading);
    const corner = Math.min(0.55, wide / 4);
    if (crashed) {
      context.fillStyle = this.palette("crash");
      box(context, -long / 2 - 0.6, -wide / 2 - 0.6, long + 1.2, wide + 1.2, corner + 0.5);
      context.fill();
    }
    context.fillStyle = "rgba(0, 0, 0, .28)";  // shadow
    box(context, -long / 2 + 0.12, -wide / 2 - 0.22, long, wide, corner);
    context.fill();
    context.fillStyle = paint;
    box(context, -long / 2, -wide / 2, long, wide, corner);
    context.fill();
    context.lineWidth = Math.max(0.09, (ego ? 1.6 : 0.8) * pixel);
    context.strokeStyle = ego || crashed ? "#fff" : "rgba(0, 0, 0, .45)";
    if (!ego && !crashed && car.car === this.leader) { context.strokeStyle = this.palette("leader"); context.lineWidth = Math.max(0.2, 2 * pixel); }
    context.stroke();
    if (wide > 5 * pixel) this.drawGlass(car, long, wide);
    context.restore();
  }

  // Windows tell front from rear, brake lights tell who slows.
  drawGlass(car, long, wide) {
    const { context } = this, truck = car.length > 8;
    context.fillStyle = "rgba(10, 18, 28, .62)";
    const front = truck ? long / 2 - 0.9 : long * 0.2, slope = truck ? 0.6 : long * 0.13;
    context.beginPath();
    context.moveTo(front, wide * 0.4); context.lineTo(front, -wide * 0.4);
    context.lineTo(front - slope, -wide * 0.33); context.lineTo(front - slope, wide * 0.33);
    context.fill();
    if (truck) {
      context.fillRect(long / 2 - 2.6, -wide / 2, 0.18, wide);
    } else {
      context.beginPath();
      context.moveTo(-long * 0.36, wide * 0.36); context.lineTo(-long * 0.36, -wide * 0.36);
      context.lineTo(-long * 0.27, -wide * 0.31); context.lineTo(-long * 0.27, wide * 0.31);
      context.fill();
    }
    if (car.braking) {
      context.fillStyle = "#ff2f2f";
      for (const side of [-1, 1]) context.fillRect(-long / 2 - 0.06, side * wide * 0.33 - wide * 0.12, 0.42, wide * 0.24);
    }
  }

  isCrash(t) { return this.episode.outcome === "collision" && t > this.episode.steps - 0.5; }

  drawCrash(t) {
    if (!this.isCrash(t)) return;
    const { context, episode, pixel } = this, ego = episode.car(0, t), other = episode.collided_with >= 0 && episode.car(episode.collided_with, t);
    if (!ego) return;
    const towards = other ? Math.atan2(other.y - ego.y, other.x - ego.x) : ego.heading;
    const reach = other ? Math.min(Math.hypot(other.x - ego.x, other.y - ego.y) / 2, ego.length / 2) : ego.length / 2;
    context.save();
    context.translate(ego.x + Math.cos(towards) * reach, ego.y + Math.sin(towards) * reach);
    const size = Math.max(1.3, 9 * pixel);
    context.beginPath();
    for (let i = 0; i < 16; i++) {
      const radius = i % 2 ? size * 0.5 : size, angle = (i * Math.PI) / 8;
      context.lineTo(radius * Math.cos(angle), radius * Math.sin(angle));
    }
    context.closePath();
    context.fillStyle = "#ffd84a";
    context.strokeStyle = this.palette("crash");
    context.lineWidth = Math.max(0.2, 2 * pixel);
    context.fill();
    context.stroke();
    context.restore();
  }

  drawScaleBar(width, height) {
    const { context, camera } = this;
    const metres = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((m) => m * camera.scale >= 70) || 2000;
    const long = metres * camera.scale, x = 14, y = height - 16;
    context.fillStyle = this.palette("plate");
    box(context, x - 6, y - 20, long + 12, 30, 6);
    context.fill();
    context.strokeStyle = context.fillStyle = this.palette("text");
    context.lineWidth = 1.5;
    context.lineCap = "butt";
    context.beginPath();
    context.moveTo(x, y - 4); context.lineTo(x, y + 2); context.lineTo(x + long, y + 2); context.lineTo(x + long, y - 4);
    context.stroke();
    context.font = "12px system-ui, 'Liberation Sans', sans-serif";
    context.textAlign = "center";
    context.fillText(`${metres} m`, x + long / 2, y - 4);
  }

  // The car under a point of the canvas.
  under(px, py) {
    const [x, y] = this.camera.toWorld(px, py);
    return (this.cars || []).find((car) => {
      const dx = x - car.x, dy = y - car.y, cos = Math.cos(car.heading), sin = Math.sin(car.heading);
      return Math.abs(dx * cos + dy * sin) < car.length / 2 + 0.5 && Math.abs(dy * cos - dx * sin) < car.width / 2 + 0.5;
    });
  }
}

function tracePaths(lines, closed) {
  const path = new Path2D();
  for (const line of lines) {
    path.moveTo(line[0], line[1]);
    for (let i = 2; i < line.length; i += 2) path.lineTo(line[i], line[i + 1]);
    if (closed) path.closePath();
  }
  return path;
}

function box(context, x, y, width, height, corner) {
  context.beginPath();
  context.roundRect(x, y, width, height, corner);
}

// Give a canvas as many pixels as the screen has; returns its size in CSS pixels.
function fit(canvas, density) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const pixels = [Math.round(width * density), Math.round(height * density)];
  if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) [canvas.width, canvas.height] = pixels;
  return [width, height];
}

function blend(from, to, share) {
  const parts = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const a = parts(from), b = parts(to);
  return `rgb(${a.map((value, i) => Math.round(value + share * (b[i] - value))).join(",")})`;
}
