// The page: playback, keyboard, pointer, read-outs.

const RATES = [0.25, 0.5, 1, 2, 4];
const PLAY = "M8 5v14l11-7z", PAUSE = "M7 5h3.6v14H7zM13.4 5H17v14h-3.6z";
const KEYS = [["Space", "play or pause"], ["← →", "one step"], ["Shift + ← →", "one second"], ["Home, End", "first, last step"],
  ["[ ]", "slower, faster"], ["+ −", "zoom (or the wheel)"], ["0", "reset zoom and position (or double click)"], ["C", "next view"],
  ["V", "next colouring"], ["P", "plan on or off"], ["F", "imagined futures on or off"], ["T", "trails on or off"],
  ["W", "weighed plans on or off"], ["A", "whom the concept attends to on or off"], ["?", "this help"]];

const element = (id) => document.getElementById(id);

class Player {
  constructor(episode) {
    this.episode = episode;
    this.t = 0;
    this.rate = 1;
    this.playing = false;
    this.colours = {};
    const palette = (name) => (this.colours[name] ||= getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
    this.palette = palette;
    this.camera = new Camera(episode);
    this.scene = new Scene(element("scene"), episode, this.camera, palette);
    this.chart = new CostChart(element("chart"), element("legend"), episode, palette);
    const pick = (place) => { this.scene.picked = place; this.scene.draw(this.t); };
    this.weighed = new WeighedTable(element("weighed-panel"), element("weighed-title"), element("weighed"), episode, pick);
    if (!this.chart.kept) {
      element("chart-title").textContent = "Speed, m/s";
      element("chart").setAttribute("aria-label", "The ego's speed over time");
    }
    this.write();
    this.buildTiles();
    this.listen();
    const asked = /step=(\d+)/.exec(location.hash);
    this.seek(asked ? Number(asked[1]) : 0);
  }

  get step() { return Math.min(this.episode.steps, Math.floor(this.t + 1e-6)); }

  state() {
    return { step: this.step, steps: this.episode.steps, time_s: this.t * this.episode.dt_s, playing: this.playing, rate: this.rate,
      camera: this.camera.mode, zoom: this.camera.zoom, colour: this.scene.colourBy, shows: { ...this.scene.shows } };
  }

  write() {
    const { episode } = this;
    element("title").textContent = episode.title;
    for (const id of ["verdict", "banner"]) {
      element(id).textContent = episode.verdict;
      element(id).classList.add(episode.outcome);
    }
    element("time").max = episode.steps;
    for (const [id, rows] of [["keys", KEYS], ["details", episode.details]]) {
      for (const [label, text] of rows) {
        const head = document.createElement("dt"), body = document.createElement("dd");
        head.textContent = label;
        body.textContent = text;
        element(id).append(head, body);
      }
    }
    this.writeKey();
  }

  writeKey() {
    const { episode, scene } = this, rows = [["Ego", "ego", ""]];
    if (scene.colourBy === "speed") rows.push(["Slower", "slower", ""], ["Same speed", "neutral", ""], ["Faster", "faster", ""]);
    else rows.push(["Others", "neutral", ""]);
    rows.push(["Leader", "leader", scene.colourBy === "speed" ? "ring" : ""]);
    if (episode.imaginations.length) rows.push(["Plan", "ego", "thin"], ["Imagined futures", "imagined", "thin"]);
    if (this.weighed && this.weighed.any) rows.push(["Plans that lost", "weighed", "thin"], ["of which hit somebody", "crash", "thin"]);
    if (episode.imaginations.some(({ attended }) => attended && attended.length)) rows.push(["Attended to by the concept", "attended", "ring"]);
    element("key").replaceChildren(...rows.map(([label, colour, shape]) => {
      const item = document.createElement("li"), mark = document.createElement("i");
      mark.className = shape;
      mark.style[shape === "ring" ? "borderColor" : "background"] = `var(--${colour})`;
      item.append(mark, label);
      return item;
    }));
  }

  buildTiles() {
    const { episode } = this, v = episode.values, n = episode.carCount;
    const held = (values) => (i) => values[Math.min(i, values.length - 1)];
    const tiles = [
      ["Speed", "m/s", 1, (i) => v.speed[i * n], () => (episode.desired_speed_mps === null ? "" : `wants ${episode.desired_speed_mps.toFixed(1)}`)],
      ["Acceleration", "m/s²", 1, held(v.acceleration), () => ""],
      ["Steering", "°", 1, (i) => (held(v.steering)(i) * 180) / Math.PI, () => "left is +"],
      ["Gap ahead", "m", 1, held(v.gap_m), (x) => (Number.isFinite(x) ? "bumper to bumper" : "no leader")],
      ["Headway", "s", 1, held(v.headway_s), (x) => (Number.isFinite(x) ? "front to front" : "")],
      ["Time to collision", "s", 1, (i) => Math.min(held(v.time_to_collision_s)(i), 30), (x) => (Number.isFinite(x) ? (x >= 30 ? "30 or more" : "") : "not on course")],
    ];
    this.tiles = tiles.map(([label, unit, digits, read, note]) => {
      const tile = document.createElement("div"), head = document.createElement("p"), body = document.createElement("p");
      const value = document.createElement("strong"), small = document.createElement("small"), canvas = document.createElement("canvas");
      tile.className = "tile";
      const name = document.createElement("small"), aside = document.createElement("small");
      name.textContent = label;
      head.className = "head";
      head.append(name, aside);
      body.append(value, " ", small);
      canvas.setAttribute("aria-hidden", "true");
      tile.append(head, body, canvas);
      element("tiles").append(tile);
      return { read, show: (i) => {
        const x = read(i);
        value.textContent = number(x, digits);
        small.textContent = Number.isFinite(x) ? unit : "";
        aside.textContent = note(x);
      }, canvas };
    });
  }

  listen() {
    const on = (id, event, act) => element(id).addEventListener(event, act);
    on("play", "click", () => this.toggle());
    on("start", "click", () => this.toggle());
    on("back", "click", () => this.jump(-1));
    on("forward", "click", () => this.jump(1));
    on("time", "input", () => this.jumpTo(Number(element("time").value)));
    on("rate", "change", () => this.setRate(Number(element("rate").value)));
    on("camera", "change", () => this.setCamera(element("camera").value));
    on("colour", "change", () => this.setColour(element("colour").value));
    on("nearer", "click", () => this.zoom(1.25));
    on("farther", "click", () => this.zoom(0.8));
    on("help-button", "click", () => element("help").showModal());
    document.addEventListener("keydown", (event) => this.key(event));
    const sized = new ResizeObserver(() => this.draw());  // also when the legend gets its text, or the screen its density
    for (const id of ["scene", "chart"]) sized.observe(element(id));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.colours = {}; this.draw(); });
    this.listenToPointer();
  }

  listenToPointer() {
    const scene = element("scene"), chart = element("chart"), tip = element("tip");
    let dragged = null;
    scene.addEventListener("wheel", (event) => { event.preventDefault(); this.zoom(Math.exp(-event.deltaY * 0.0015)); }, { passive: false });
    scene.addEventListener("dblclick", () => { this.camera.reset(); this.draw(); });
    scene.addEventListener("pointerdown", (event) => { dragged = [event.clientX, event.clientY]; scene.setPointerCapture(event.pointerId); });
    scene.addEventListener("pointerup", () => { dragged = null; });
    scene.addEventListener("pointerleave", () => { tip.hidden = true; this.hover = null; });
    scene.addEventListener("pointermove", (event) => {
      if (dragged) {
        this.camera.pan[0] += event.clientX - dragged[0];
        this.camera.pan[1] += event.clientY - dragged[1];
        dragged = [event.clientX, event.clientY];
        this.draw();
      }
      this.hover = [event.offsetX, event.offsetY];
      this.drawTip();
    });
    const seek = (event) => this.jumpTo(this.chart.stepAt(event.offsetX));
    chart.addEventListener("pointerdown", (event) => { chart.setPointerCapture(event.pointerId); seek(event); });
    chart.addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || element("help").open) return;
    const second = Math.max(1, Math.round(1 / this.episode.dt_s)), far = event.shiftKey ? second : 1;
    const toggleShown = (name) => { this.scene.shows[name] = !this.scene.shows[name]; this.draw(); };
    const cycle = (id) => { const list = element(id); list.selectedIndex = (list.selectedIndex + 1) % list.length; list.dispatchEvent(new Event("change")); };
    const acts = {
      " ": () => this.toggle(), ArrowLeft: () => this.jump(-far), ArrowRight: () => this.jump(far),
      Home: () => this.jumpTo(0), End: () => this.jumpTo(this.episode.steps),
      "[": () => this.changeRate(-1), "]": () => this.changeRate(1), "+": () => this.zoom(1.25), "=": () => this.zoom(1.25), "-": () => this.zoom(0.8),
      0: () => { this.camera.reset(); this.draw(); }, c: () => cycle("camera"), v: () => cycle("colour"),
      p: () => toggleShown("plan"), f: () => toggleShown("futures"), t: () => toggleShown("trails"),
      w: () => toggleShown("weighed"), a: () => toggleShown("attended"), "?": () => element("help").showModal(),
    };
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    if (event.target.tagName === "SELECT" && event.key !== " ") return;  // a list has its own keys
    if (event.target.tagName === "BUTTON" && event.key === " ") return;  // and so has a button
    event.preventDefault();
    act();
  }

  toggle() { if (this.playing) this.pause(); else this.play(); }

  play() {
    if (this.t >= this.episode.steps) this.t = 0;
    this.playing = true;
    this.last = null;
    this.showPlaying();
    requestAnimationFrame((now) => this.tick(now));
  }

  pause() { this.playing = false; this.showPlaying(); }

  showPlaying() {
    element("start").hidden = true;
    element("play").setAttribute("aria-label", this.playing ? "Pause" : "Play");
    element("play-icon").setAttribute("d", this.playing ? PAUSE : PLAY);
    if (!this.playing) this.seek(this.step);
  }

  tick(now) {
    if (!this.playing) return;
    if (this.last !== null) this.t += (Math.min(now - this.last, 250) / 1000 / this.episode.dt_s) * this.rate;
    this.last = now;
    if (this.t >= this.episode.steps) { this.t = this.episode.steps; this.pause(); return; }
    this.draw();
    requestAnimationFrame((next) => this.tick(next));
  }

  jump(steps) { this.jumpTo(this.step + steps); }
  jumpTo(step) { this.pause(); this.seek(step); }
  seek(step) { this.t = Math.min(this.episode.steps, Math.max(0, step)); this.draw(); }
  zoom(factor) { this.camera.zoomBy(factor); this.draw(); }
  setRate(rate) { this.rate = rate; element("rate").value = String(rate); }
  changeRate(by) { this.setRate(RATES[Math.min(RATES.length - 1, Math.max(0, RATES.indexOf(this.rate) + by))]); }
  setCamera(mode) { this.camera.mode = mode; this.camera.reset(); element("camera").value = mode; this.draw(); }
  setColour(by) { this.scene.colourBy = by; element("colour").value = by; this.writeKey(); this.draw(); }

  draw() {
    const { episode, step } = this;
    this.scene.prepare(this.t);
    this.scene.draw(this.t);
    this.chart.draw(this.t);
    this.weighed.draw(this.t);
    for (const tile of this.tiles) {
      tile.show(step);
      sparkline(tile.canvas, tile.read, episode.steps, this.t, this.palette);
    }
    const seconds = (value) => value.toFixed(1);
    const range = element("time");
    range.value = step;
    range.setAttribute("aria-valuetext", `${seconds(step * episode.dt_s)} of ${seconds(episode.duration_s)} seconds`);
    element("clock").textContent = `${seconds(step * episode.dt_s)} / ${seconds(episode.duration_s)} s`;
    element("banner").hidden = step < episode.steps;
    if (!this.playing) element("scene").setAttribute("aria-label", this.describe(step));
    this.drawTip();
  }

  describe(step) {
    const v = this.episode.values, gap = this.episode.reading("gap_m", step), speed = v.speed[step * this.episode.carCount];
    const leader = Number.isFinite(gap) ? `leader ${gap.toFixed(0)} metres ahead` : "no leader";
    return `Traffic from above at ${(step * this.episode.dt_s).toFixed(1)} seconds: ego at ${speed.toFixed(1)} metres per second, ${leader}`;
  }

  drawTip() {
    const tip = element("tip"), car = this.hover && this.scene.under(...this.hover);
    tip.hidden = !car;
    if (!car) return;
    const relative = car.speed - this.scene.egoSpeed, sign = relative < 0 ? "−" : "+";
    const against = car.car ? `, ${sign}${Math.abs(relative).toFixed(1)} against the ego` : "";
    tip.textContent = `${car.car ? `Car ${this.episode.cars[car.car].name}` : "Ego"}: ${car.speed.toFixed(1)} m/s${against}\n${car.length.toFixed(1)} × ${car.width.toFixed(1)} m`;
    const [x, y] = this.hover;
    tip.style.left = `${Math.max(4, Math.min(x + 14, element("scene").clientWidth - tip.offsetWidth - 6))}px`;
    tip.style.top = `${Math.max(4, y - tip.offsetHeight - 10)}px`;
  }
}

// For scripts and tests: `await replay.ready`, then `replay.state()`, `replay.seek(step)`, `replay.play()`, `replay.pause()`.
window.replay = { state: () => null, ready: null };
window.replay.ready = Episode.of(element("data").textContent.trim()).then((episode) => {
  const player = new Player(episode);
  for (const name of ["state", "seek", "play", "pause"]) window.replay[name] = player[name].bind(player);
}).catch((error) => {
  element("failure").textContent = `This replay cannot be shown: ${error.message}`;
  element("failure").hidden = false;
  throw error;
});
