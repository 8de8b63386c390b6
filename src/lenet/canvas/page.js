/* The page: a field to draw in, pictures and examples beside it, and what each network answers. Its data are those
that page.py has put into the element `data`. */

const PEN = 60; // of a field of 560: as thick as MNIST's strokes in a digit that fills the field
const LARGEST_PICTURE = 512; // pixels a side; a larger one is made smaller first
const EMPTY = "Nothing is drawn yet.";

const at = (id) => document.getElementById(id);
const {table, networks: described, images, examples} = JSON.parse(at("data").textContent);
const networks = described.map((its) => ({...its, answer: recogniser(its, table), card: at(its.name)}));
const paper = at("paper"), pen = paper.getContext("2d", {willReadFrequently: true});
Object.assign(pen, {lineWidth: PEN, lineCap: "round", lineJoin: "round"});

/** Say something; screen readers do, too. */
const tell = (text) => (at("answers").textContent = text);

// what is seen

/** Paint maps side by side, from white to black between the bounds: those given, or each map's own. */
function paint(canvas, data, width, height, bounds = null) {
  const area = width * height, maps = data.length / area, across = Math.min(ACROSS, maps);
  canvas.width = across * (width + 1) - 1;
  canvas.height = Math.ceil(maps / across) * (height + 1) - 1;
  const context = canvas.getContext("2d");
  for (let map = 0; map < maps; map++) {
    const its = data.slice(map * area, (map + 1) * area), picture = context.createImageData(width, height);
    const [low, high] = bounds ?? [Math.min(...its), Math.max(...its)];
    its.forEach((value, i) => {
      const grey = 255 - (255 * (value - low)) / (high - low || 1);
      picture.data.set([grey, grey, grey, 255], 4 * i);
    });
    context.putImageData(picture, (map % across) * (width + 1), Math.floor(map / across) * (height + 1));
  }
}

const ACROSS = 8, INK = [0, 255], STATES = [-1.2, 1.2];
const BITMAP = [7, 12]; // F6's units beside the codes that they aim at
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const shown = (number) => number.toFixed(2).replace("-", "−");

/** One network's answer in its card; `found` as a recogniser gives it, or null. */
function fill({card, kind, low, high, layers}, found) {
  const values = found && (found.probabilities ?? found.scores);
  const written = kind === "probability" ? percent : shown;
  const most = high ?? Math.max(...(values ?? [1]));
  card.querySelector(".digit").textContent = found ? found.digit : "–";
  card.querySelectorAll(".scores li").forEach((row, label) => {
    row.classList.toggle("chosen", found?.digit === label);
    row.style.setProperty("--share", values ? Math.max(0, (values[label] - low) / (most - low)) : 0);
    row.lastElementChild.textContent = values ? written(values[label]) : "";
  });
  for (const [layer] of layers) {
    const canvas = card.querySelector(`[data-layer=${layer}]`);
    canvas.hidden = !found;
    if (found) paint(canvas, found.states[layer].data, found.states[layer].side, found.states[layer].side);
  }
  const unit = card.querySelector(".unit");
  if (!unit) return;
  unit.hidden = !found;
  if (found) paint(unit, found.states.F6.data, ...BITMAP, STATES);
  card.querySelectorAll(".code").forEach((code, label) => code.classList.toggle("chosen", found?.digit === label));
}

/** Show an image, 784 bytes, and what the networks answer; null shows that there is none. Tells it, if asked to. */
function show(image, words) {
  paint(at("seen"), image ?? new Uint8Array(784), 28, 28, INK);
  const found = networks.map((network) => (image ? network.answer(image) : null));
  networks.forEach((network, i) => fill(network, found[i]));
  if (words === undefined) return;
  const answers = networks.map(({name}, i) => {
    const {digit, probabilities} = found[i] ?? {};
    return `${name}: ${digit}${probabilities ? ` (${percent(probabilities[digit])})` : ""}`;
  });
  tell(image ? `${words}${answers.join(", ")}` : EMPTY);
}

// where it comes from: a pen, a picture, an example

let drawn = true; // by the pen: what else stands in the field is wiped off by its first stroke
let pointer = null, last = [0, 0], due = false;

function wipe() {
  drawn = true;
  pen.clearRect(0, 0, paper.width, paper.height);
  document.querySelectorAll("[aria-pressed=true]").forEach((button) => button.setAttribute("aria-pressed", "false"));
}

/** Put an image into the field. */
function put(image, words) {
  wipe();
  drawn = false;
  const small = Object.assign(document.createElement("canvas"), {width: 28, height: 28});
  const picture = new ImageData(28, 28);
  image.forEach((ink, i) => (picture.data[4 * i + 3] = ink));
  small.getContext("2d").putImageData(picture, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, 0, 0, paper.width, paper.height);
  show(image, words);
}

/** Where a pointer is in the field. */
function place({clientX, clientY}) {
  const {left, top, width} = paper.getBoundingClientRect(), scale = paper.width / width;
  return [(clientX - left) * scale, (clientY - top) * scale];
}

function line(event) {
  const next = place(event);
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(...next);
  pen.stroke();
  last = next;
}

const read = () => centred(inkOfDrawing(pen.getImageData(0, 0, paper.width, paper.height)), paper.width);

paper.addEventListener("pointerdown", (event) => {
  if (event.button || pointer !== null) return;
  if (!drawn) wipe();
  pointer = event.pointerId;
  paper.setPointerCapture(pointer);
  last = place(event);
  line(event);
});
paper.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  const steps = event.getCoalescedEvents?.() ?? [];
  (steps.length ? steps : [event]).forEach(line);
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    if (pointer !== null) show(read());
  });
});
for (const end of ["pointerup", "pointercancel"])
  paper.addEventListener(end, (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    show(read(), "");
  });

at("clear").addEventListener("click", () => {
  wipe();
  show(null, "");
});

/** Read a picture's file. */
async function take(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {colorSpaceConversion: "none", premultiplyAlpha: "none"});
  } catch {
    return tell(`${file.name} is no picture that this browser can read.`);
  }
  const scale = Math.min(1, LARGEST_PICTURE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((length) => Math.max(1, Math.round(length * scale)));
  const context = Object.assign(document.createElement("canvas"), {width, height}).getContext("2d");
  context.drawImage(bitmap, 0, 0, width, height);
  const image = digitOf(context.getImageData(0, 0, width, height));
  return image ? put(image, `${file.name}. `) : tell(`${file.name} shows nothing.`);
}

at("file").addEventListener("change", ({target}) => {
  if (target.files.length) take(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) take(file);
});

/** Buttons in one tab stop; arrow keys lead from one to the next. */
function toolbar(bar, digits, pixels) {
  const buttons = digits.map(([place, words], i) => {
    const button = document.createElement("button");
    Object.assign(button, {title: words, tabIndex: i ? -1 : 0, type: "button"});
    button.setAttribute("aria-label", words);
    button.setAttribute("aria-pressed", "false");
    const image = pixels.subarray(784 * place, 784 * (place + 1)), canvas = document.createElement("canvas");
    paint(canvas, image, 28, 28, INK);
    button.append(canvas);
    button.addEventListener("click", () => {
      put(image, `${words}. `);
      button.setAttribute("aria-pressed", "true");
      reach(i);
    });
    return button;
  });
  const reach = (i) => {
    buttons.forEach((button, j) => (button.tabIndex = i === j ? 0 : -1));
    buttons[i].focus();
  };
  bar.append(...buttons);
  bar.addEventListener("keydown", (event) => {
    const i = buttons.indexOf(document.activeElement), end = buttons.length - 1;
    const next = {ArrowRight: Math.min(i + 1, end), ArrowLeft: Math.max(i - 1, 0), Home: 0, End: end}[event.key];
    if (next === undefined) return;
    event.preventDefault();
    reach(next);
  });
}

const pixels = bytes(images);
examples.forEach(({name, digits}) => toolbar(at(name), digits, pixels));
for (const {card, codes} of networks)
  card.querySelectorAll(".code").forEach((code, label) => paint(code, codes[label], ...BITMAP, STATES));

/** Compare the scores of the examples with Python's, bit for bit: a digit at a time, so that the page stays awake. */
async function check() {
  const count = pixels.length / 784, differing = [];
  for (const {name, answer, scores} of networks) {
    const theirs = new DataView(bytes(scores).buffer);
    for (let i = 0; i < count; i++) {
      const ours = answer(pixels.subarray(784 * i, 784 * (i + 1))).scores;
      if (!ours.every((score, j) => Object.is(score, theirs.getFloat32(4 * (10 * i + j), true)))) {
        differing.push(name);
        break;
      }
      await new Promise((resume) => setTimeout(resume));
    }
  }
  at("check").textContent = differing.length
    ? `In this browser the scores of ${differing.join(", ")} differ from Python’s.`
    : `Checked in this browser: the scores of all ${count} examples have the bits of Python’s.`;
}

show(null);
if (examples.length) check();
globalThis.lenet = {bytes, networks}; // networks[0].answer(image) for the console, and for tests
