"use strict";
// Plays the episode in the page's JSON. World axes are MuJoCo's: metres, z up. Matrices are column-major, as WebGL's.
const episode = JSON.parse(document.getElementById("episode").textContent);
const $ = (id) => document.getElementById(id);
const FRAMES = episode.frames.length, POSE = 7, WORLD = -1;
const LIGHT = normalise([0.45, -0.55, 1.0]); // towards the sun
const FIELD_OF_VIEW = 0.62; // rad, vertical

// ---- vectors, quaternions (w first), matrices ----
function normalise(v) { const n = Math.hypot(...v) || 1; return v.map((x) => x / n); }
function cross(a, b) { return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]; }
function dot(a, b) { return a.reduce((sum, x, i) => sum + x * b[i], 0); }
function poseMatrix(p, q) {
  const [w, x, y, z] = normalise(q);
  return [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y), 0,
          2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x), 0,
          2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y), 0, p[0], p[1], p[2], 1];
}
function multiply(a, b) {
  const out = new Array(16).fill(0);
  for (let c = 0; c < 4; c++) for (let r = 0; r < 4; r++) for (let k = 0; k < 4; k++) out[4 * c + r] += a[4 * k + r] * b[4 * c + k];
  return out;
}
function perspective(aspect, near, far) {
  // The narrower side of the window sees the field of view, so that a phone shows the whole figure.
  const f = 1 / Math.tan(FIELD_OF_VIEW / 2), fit = Math.min(1, aspect);
  return [f * fit / aspect, 0, 0, 0, 0, f * fit, 0, 0, 0, 0, (far + near) / (near - far), -1, 0, 0, 2 * far * near / (near - far), 0];
}
function lookAt(eye, target) {
  const back = normalise(eye.map((x, i) => x - target[i])), right = normalise(cross([0, 0, 1], back)), up = cross(back, right);
  return [right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0, -dot(right, eye), -dot(up, eye), -dot(back, eye), 1];
}
function shadowMatrix(z) { // flattens along the light onto the height z
  const [x, y] = [LIGHT[0] / LIGHT[2], LIGHT[1] / LIGHT[2]];
  return [1, 0, 0, 0, 0, 1, 0, 0, -x, -y, 0, 0, x * z, y * z, z, 1];
}
function point(m, v) { return [0, 1, 2].map((r) => m[r] * v[0] + m[4 + r] * v[1] + m[8 + r] * v[2] + m[12 + r]); }

// ---- shapes: vertices are position and normal, six numbers each ----
function lathe(profile, scale = [1, 1, 1]) { // profile: [radius, z, normal outwards, normal z]
  const turns = 32, vertices = [], indices = [];
  profile.forEach(([r, z, outwards, up], i) => {
    for (let t = 0; t <= turns; t++) {
      const c = Math.cos(2 * Math.PI * t / turns), s = Math.sin(2 * Math.PI * t / turns);
      const normal = normalise([outwards * c / scale[0], outwards * s / scale[1], up / scale[2]]);
      vertices.push(r * c * scale[0], r * s * scale[1], z * scale[2], ...normal);
      if (i > 0 && t > 0) {
        const a = i * (turns + 1) + t, b = a - turns - 1;
        indices.push(b - 1, b, a, b - 1, a, a - 1);
      }
    }
  });
  return { vertices, indices };
}
function ball(radius, half) { // a sphere, or a capsule with a straight part of 2 half
  const profile = [];
  for (const [side, from] of [[-1, -90], [1, 0]]) {
    for (let angle = from; angle <= from + 90; angle += 9) {
      const c = Math.cos(angle * Math.PI / 180), s = Math.sin(angle * Math.PI / 180);
      profile.push([radius * c, radius * s + side * half, c, s]);
    }
  }
  return profile;
}
function box([x, y, z]) {
  const vertices = [], indices = [];
  for (let axis = 0; axis < 3; axis++) for (const side of [-1, 1]) {
    const base = vertices.length / 6, normal = [0, 0, 0];
    normal[axis] = side;
    for (const [u, v] of [[-1, -1], [1, -1], [1, 1], [-1, 1]]) {
      const corner = [0, 0, 0];
      corner[axis] = side; corner[(axis + 1) % 3] = u * side; corner[(axis + 2) % 3] = v;
      vertices.push(corner[0] * x, corner[1] * y, corner[2] * z, ...normal);
    }
    indices.push(base, base + 1, base + 2, base, base + 2, base + 3);
  }
  return { vertices, indices };
}
function mesh({ shape, size: [a, b, c] }) {
  if (shape === "sphere") return lathe(ball(a, 0));
  if (shape === "capsule") return lathe(ball(a, b));
  if (shape === "ellipsoid") return lathe(ball(1, 0), [a, b, c]);
  if (shape === "cylinder") return lathe([[0, -b, 0, -1], [a, -b, 0, -1], [a, -b, 1, 0], [a, b, 1, 0], [a, b, 0, 1], [0, b, 0, 1]]);
  return box([a, b, c]);
}

// ---- the episode ----
const returns = []; // return so far, by frame
episode.rewards.reduce((sum, reward, i) => (returns[i] = sum + reward), 0);
function linkPoses(time) { // matrices of all links at a fractional frame
  const frame = Math.min(Math.floor(time), FRAMES - 1), share = time - frame;
  const now = episode.frames[frame], next = episode.frames[Math.min(frame + 1, FRAMES - 1)];
  return Array.from({ length: episode.links }, (_, link) => {
    const a = now.slice(POSE * link, POSE * (link + 1)), b = next.slice(POSE * link, POSE * (link + 1));
    const near = dot(a.slice(3), b.slice(3)) < 0 ? -1 : 1; // q and -q turn alike: blend along the shorter way
    const mix = a.map((x, i) => x + share * ((i < 3 ? 1 : near) * b[i] - x));
    return poseMatrix(mix.slice(0, 3), mix.slice(3));
  });
}
const solids = episode.geoms.filter((geom) => geom.shape !== "plane").map((geom) => ({
  ...geom, ...mesh(geom), local: poseMatrix(geom.pos, geom.rot), color: tint(geom) }));
function tint({ color, link, root }) { // models often leave every part in one drab brown or grey
  const [r, g, b, a] = color, drab = Math.max(r, g, b) - Math.min(r, g, b) < 0.2 && r < 0.9;
  const body = [[0.93, 0.53, 0.22], [0.96, 0.66, 0.31], [0.86, 0.42, 0.20]], things = [[0.13, 0.55, 0.50], [0.22, 0.42, 0.75]];
  if (!drab) return color;
  return link === WORLD ? [0.55, 0.6, 0.66, a] : root === 0 ? [...body[link % 3], a] : [...things[link % 2], a];
}
function bounds(time, moving) { // of all solids, or of the moving ones: [low, high]
  const links = linkPoses(time), low = [1e9, 1e9, 1e9], high = [-1e9, -1e9, -1e9];
  for (const { link, local, vertices } of solids) {
    if (moving && link === WORLD) continue;
    const model = link === WORLD ? local : multiply(links[link], local);
    for (let i = 0; i < vertices.length; i += 30) point(model, vertices.slice(i, i + 3)).forEach((x, k) => {
      low[k] = Math.min(low[k], x); high[k] = Math.max(high[k], x);
    });
  }
  return [low, high];
}
const figure = bounds(0, solids.some((solid) => solid.link !== WORLD)), everything = bounds(0, false);
const figureRadius = 0.5 * Math.hypot(...figure[1].map((x, i) => x - figure[0][i]));
const spread = [0, 1].map((k) => { const along = episode.frames.map((f) => f[k]); return Math.max(...along) - Math.min(...along); });
const tracking = Math.hypot(...spread) > 2 * figureRadius; // a figure that walks away is followed, others have a fixed camera
const [low, high] = tracking ? figure : everything;
const centre = low.map((x, i) => 0.5 * (x + high[i])), radius = 0.5 * Math.hypot(...high.map((x, i) => x - low[i]));
const floor = episode.geoms.find((geom) => geom.shape === "plane");
const ground = floor ? floor.pos[2] : Math.min(everything[0][2], bounds(FRAMES - 1, false)[0][2]) - 0.02 * radius;
const cell = [0.1, 0.25, 0.5, 1, 2, 5].find((size) => size >= 0.3 * radius) || 10;

// ---- drawing ----
const canvas = $("scene"), gl = canvas.getContext("webgl2", { antialias: true, stencil: true });
const VERTEX = `#version 300 es
layout(location=0) in vec3 position; layout(location=1) in vec3 normal;
uniform mat4 camera, model; out vec3 world, facing;
void main() { vec4 p = model * vec4(position, 1.0); world = p.xyz; facing = mat3(model) * normal; gl_Position = camera * p; }`;
const SOLID = `#version 300 es
precision highp float; in vec3 world, facing; out vec4 pixel; uniform vec3 eye, light; uniform vec4 color;
void main() {
  vec3 n = normalize(facing), v = normalize(eye - world); vec3 albedo = pow(color.rgb, vec3(2.2));
  vec3 sky = mix(vec3(0.30, 0.28, 0.26), vec3(0.55, 0.62, 0.72), 0.5 + 0.5 * n.z);
  float gloss = pow(max(dot(n, normalize(light + v)), 0.0), 40.0), rim = pow(1.0 - max(dot(n, v), 0.0), 3.0);
  vec3 lit = albedo * (sky + 0.95 * max(dot(n, light), 0.0)) + 0.18 * gloss + 0.10 * rim;
  pixel = vec4(pow(lit, vec3(1.0 / 2.2)), 1.0) * color.a;
}`;
const FLOOR = `#version 300 es
precision highp float; in vec3 world; out vec4 pixel; uniform vec3 eye; uniform float cell, reach; uniform vec2 middle;
void main() {
  vec2 p = world.xy / cell, width = fwidth(p) + 1e-5;
  vec2 q = abs(fract(p * 0.5) - 0.5), checks = clamp((q - 0.25) / width * 2.0, -1.0, 1.0); // smoothed squares
  float calm = 1.0 - smoothstep(0.2, 0.7, max(width.x, width.y));
  vec3 tone = mix(vec3(0.80, 0.83, 0.86), vec3(0.74, 0.78, 0.82), 0.5 + 0.5 * checks.x * checks.y * calm);
  float alpha = 1.0 - smoothstep(0.35, 1.0, length(world.xy - middle) / reach);
  pixel = vec4(tone, 1.0) * alpha;
}`;
const SHADOW = `#version 300 es
precision highp float; in vec3 world; out vec4 pixel; uniform float reach; uniform vec2 middle;
void main() { pixel = vec4(0.08, 0.11, 0.16, 1.0) * 0.34 * (1.0 - smoothstep(0.2, 0.8, length(world.xy - middle) / reach)); }`;

function program(fragment) {
  const made = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source); gl.compileShader(shader); gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return new Proxy({}, { get: (_, name) => name === "self" ? made : gl.getUniformLocation(made, name) });
}
function upload({ vertices, indices }) {
  const array = gl.createVertexArray();
  gl.bindVertexArray(array);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(vertices), gl.STATIC_DRAW);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, new Uint16Array(indices), gl.STATIC_DRAW);
  [0, 1].forEach((slot) => { gl.enableVertexAttribArray(slot); gl.vertexAttribPointer(slot, 3, gl.FLOAT, false, 24, 12 * slot); });
  return { array, count: indices.length };
}

let time = Math.min(Math.max(parseInt(location.hash.slice(1)) || 0, 0), FRAMES - 1); // in frames, fractional
let playing = !location.hash && !matchMedia("(prefers-reduced-motion: reduce)").matches, last = 0, drawn = "";
const thin = high[2] - low[2] < 0.3 * radius; // a flat scene is seen better from above
const view = { turn: -1.15, tilt: thin ? 0.9 : 0.3, zoom: 1 }; // rad, rad, factor

function draw(shaders, floorMesh) {
  const links = linkPoses(time), target = [...centre];
  if (tracking) [0, 1].forEach((k) => { target[k] += links[0][12 + k] - episode.frames[0][k]; });
  const distance = view.zoom * radius / Math.sin(FIELD_OF_VIEW / 2) * 1.1, flat = Math.cos(view.tilt);
  const eye = [flat * Math.cos(view.turn), flat * Math.sin(view.turn), Math.sin(view.tilt)].map((x, i) => target[i] + distance * x);
  eye[2] = Math.max(eye[2], ground + 0.05 * radius);
  const reach = 5 * distance, middle = target.slice(0, 2);
  const camera = multiply(perspective(canvas.width / canvas.height, 0.02 * distance, 20 * distance), lookAt(eye, target));
  const models = solids.map(({ link, local }) => link === WORLD ? local : multiply(links[link], local));
  const use = (shader) => {
    gl.useProgram(shader.self);
    gl.uniformMatrix4fv(shader.camera, false, camera);
    gl.uniform3fv(shader.eye, eye); gl.uniform3fv(shader.light, LIGHT); gl.uniform2fv(shader.middle, middle);
    gl.uniform1f(shader.reach, reach); gl.uniform1f(shader.cell, cell);
  };
  const paint = (shader, { array, count }, model) => {
    gl.uniformMatrix4fv(shader.model, false, model);
    gl.bindVertexArray(array);
    gl.drawElements(gl.TRIANGLES, count, gl.UNSIGNED_SHORT, 0);
  };
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT | gl.STENCIL_BUFFER_BIT);
  use(shaders.floor);
  paint(shaders.floor, floorMesh, [reach, 0, 0, 0, 0, reach, 0, 0, 0, 0, 1, 0, middle[0], middle[1], ground, 1]);
  gl.enable(gl.STENCIL_TEST); // each pixel darkens once, however many shapes shade it
  gl.depthMask(false);
  use(shaders.shadow);
  const flatten = shadowMatrix(ground + 0.002 * radius);
  solids.forEach((solid, i) => paint(shaders.shadow, solid.buffer, multiply(flatten, models[i])));
  gl.depthMask(true);
  gl.disable(gl.STENCIL_TEST);
  use(shaders.solid);
  solids.forEach((solid, i) => {
    gl.uniform4fv(shaders.solid.color, solid.color);
    paint(shaders.solid, solid.buffer, models[i]);
  });
}

// ---- controls ----
function show() {
  const frame = Math.min(Math.round(time), FRAMES - 1);
  $("scrub").value = frame;
  $("time").textContent = `${(frame * episode.dt).toFixed(2)} s`;
  $("step").textContent = `${frame} / ${FRAMES - 1}`;
  $("reward").textContent = episode.rewards[frame].toFixed(2);
  $("return").textContent = returns[frame].toFixed(1);
  $("play").textContent = playing ? "❚❚" : "▶";
}
function play(on) {
  playing = on;
  if (on && time >= FRAMES - 1) time = 0;
  show();
}
function jump(frame) { playing = false; time = Math.min(Math.max(frame, 0), FRAMES - 1); show(); }
function listen() {
  $("scrub").max = FRAMES - 1;
  $("scrub").addEventListener("input", () => jump(Number($("scrub").value)));
  $("play").addEventListener("click", () => play(!playing));
  addEventListener("keydown", (event) => {
    if (["SELECT", "BUTTON", "INPUT"].includes(event.target.tagName)) return;
    if (event.key === " ") play(!playing);
    else if (event.key === "ArrowRight") jump(Math.round(time) + 1);
    else if (event.key === "ArrowLeft") jump(Math.round(time) - 1);
  });
  const fingers = new Map(); // pointer -> [x, y]
  const pinch = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]) || 1; };
  const zoom = (factor) => { view.zoom = Math.min(Math.max(view.zoom * factor, 0.3), 5); };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); fingers.set(event.pointerId, [event.clientX, event.clientY]); });
  ["pointerup", "pointercancel"].forEach((name) => canvas.addEventListener(name, (event) => fingers.delete(event.pointerId)));
  canvas.addEventListener("pointermove", (event) => {
    const from = fingers.get(event.pointerId);
    if (!from) return;
    const before = fingers.size === 2 ? pinch() : 0;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (before) { zoom(before / pinch()); return; }
    view.turn -= 0.006 * (event.clientX - from[0]);
    view.tilt = Math.min(Math.max(view.tilt + 0.006 * (event.clientY - from[1]), 0.02), 1.5);
  });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(0.001 * event.deltaY)); }, { passive: false });
}
function curve() { // the return so far, over the scrubber
  const lowest = Math.min(0, ...returns), span = Math.max(0, ...returns) - lowest || 1, stride = Math.ceil(FRAMES / 400);
  const points = returns.map((x, i) => [100 * i / Math.max(FRAMES - 1, 1), 96 - 92 * (x - lowest) / span]).filter((_, i) => i % stride === 0);
  $("curve").setAttribute("d", "M" + points.map((p) => p.map((x) => x.toFixed(2)).join(" ")).join("L"));
}
function start() {
  curve(); listen(); show();
  if (!gl) {
    $("message").textContent = "This browser offers no WebGL 2, which the picture needs.";
    $("message").hidden = false;
    return;
  }
  const shaders = { solid: program(SOLID), floor: program(FLOOR), shadow: program(SHADOW) };
  solids.forEach((solid) => { solid.buffer = upload(solid); });
  const floorMesh = upload({ vertices: [-1, -1, 0, 0, 0, 1, 1, -1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, -1, 1, 0, 0, 0, 1], indices: [0, 1, 2, 0, 2, 3] });
  gl.enable(gl.DEPTH_TEST); gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA); // colours arrive multiplied by their opacity
  gl.stencilFunc(gl.EQUAL, 0, 255); gl.stencilOp(gl.KEEP, gl.KEEP, gl.INCR);
  const tick = (now) => {
    if (playing) {
      time = Math.min(time + Math.min(now - last, 100) / 1000 / episode.dt * Number($("speed").value), FRAMES - 1);
      if (time >= FRAMES - 1) playing = false;
      show();
    }
    last = now;
    const scale = Math.min(devicePixelRatio || 1, 2), size = [innerWidth * scale, innerHeight * scale].map(Math.round);
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const scene = [time, view.turn, view.tilt, view.zoom, ...size].join();
    if (scene !== drawn) { draw(shaders, floorMesh); drawn = scene; }
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}
start();
