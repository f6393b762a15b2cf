// Where the picture looks, and from metres to pixels.

class Camera {
  constructor(episode) {
    this.episode = episode;
    this.mode = "follow";
    this.reset();
  }

  reset() { this.zoom = 1; this.pan = [0, 0]; }

  zoomBy(factor) { this.zoom = Math.min(12, Math.max(0.15, this.zoom * factor)); }

  // Look at fractional step `t` on a canvas of `width` by `height` CSS pixels.
  aim(t, width, height) {
    const { episode } = this, i = Math.min(Math.floor(t), episode.steps), j = Math.min(i + 1, episode.steps);
    if (this.mode === "whole") {
      const box = episode.bounds, margin = 15;
      const across = box.right - box.left + 2 * margin, up = box.high - box.low + 2 * margin;
      this.scale = this.zoom * Math.min(width / across, height / up);
      this.angle = 0;
      this.centre = [(box.left + box.right) / 2, (box.low + box.high) / 2];
      this.anchor = [width / 2, height / 2];
    } else {
      const ego = episode.car(0, t) || this.last || { x: 0, y: 0 };
      this.last = ego;
      const visible_m = Math.min(140, Math.max(75, width / 8.5));
      this.scale = (this.zoom * width) / visible_m;
      const between = (values) => values[i] + (t - i) * (values[j] - values[i]);
      this.angle = this.mode === "follow" ? between(episode.course) : 0;
      this.centre = [ego.x, ego.y];
      this.anchor = [width / 2, height / 2];
      if (this.mode === "follow") {  // more road ahead than behind, and the road in the middle
        const aside = between(episode.middle) * this.scale;
        this.anchor = [width * 0.36, height / 2 + Math.max(-height * 0.3, Math.min(height * 0.3, aside))];
      }
    }
    this.anchor = [this.anchor[0] + this.pan[0], this.anchor[1] + this.pan[1]];
    this.cos = Math.cos(this.angle);
    this.sin = Math.sin(this.angle);
    this.size = [width, height];
  }

  // Draw in metres from here on.
  apply(context, density) {
    const k = this.scale * density, [x, y] = this.toScreen(0, 0);
    context.setTransform(k * this.cos, k * this.sin, k * this.sin, -k * this.cos, x * density, y * density);
  }

  toScreen(x, y) {
    const dx = x - this.centre[0], dy = y - this.centre[1];
    return [this.anchor[0] + this.scale * (dx * this.cos + dy * this.sin), this.anchor[1] - this.scale * (dy * this.cos - dx * this.sin)];
  }

  toWorld(px, py) {
    const across = (px - this.anchor[0]) / this.scale, up = -(py - this.anchor[1]) / this.scale;
    return [this.centre[0] + across * this.cos - up * this.sin, this.centre[1] + across * this.sin + up * this.cos];
  }

  sees(x, y, margin_m) {
    const [px, py] = this.toScreen(x, y), margin = margin_m * this.scale;
    return px > -margin && py > -margin && px < this.size[0] + margin && py < this.size[1] + margin;
  }
}
