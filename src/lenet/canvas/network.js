"use strict";
/* The networks of src/lenet/networks in use, with the same bits.

JavaScript's numbers are IEEE 754 doubles, and Math.fround rounds one to single precision. So the arithmetic of
src/lenet/arithmetic can be written here: operands of products are rounded to grids, their sums in doubles are exact in
any order, and everything else is one operation at a time, each rounded to single precision. (A sum, product, quotient
or root of singles in double precision, rounded, is the correctly rounded single.)

A layer is a function of states: {data: Float32Array, maps, side}, the maps one after the other, row by row. One digit
at a time: what a network makes of a digit does not depend on others. */

const {fround} = Math;

// exact.py

const SUM_BITS = 53, WEIGHT_BITS = 22, INPUT_BITS = 20, GRADIENT_BITS = 20, FEWEST_BITS = 12, GRID_BITS = 22;
const SMALLEST = -100, LARGEST = 100;

/** How many bits a sum of so many terms has more than a term: ⌈log₂ terms⌉. */
const length = (terms) => 32 - Math.clz32(terms - 1);

/** The bits of a weight whose products are summed in so many terms. */
function weightBits(...terms) {
  const bits = Math.min(WEIGHT_BITS, SUM_BITS - Math.max(INPUT_BITS, GRADIENT_BITS) - Math.max(...terms.map(length)));
  if (bits < FEWEST_BITS) throw new RangeError(`a sum of ${Math.max(...terms)} products is too long to be exact`);
  return bits;
}

const single = new Float32Array(1), bitsOfSingle = new Int32Array(single.buffer);

/** The smallest e, at least `least`, so that all magnitudes of `x` are below 2^e. */
function exponent(x, least = SMALLEST) {
  let largest = 0;
  for (let i = 0; i < x.length; i++) largest = Math.max(largest, Math.abs(x[i])); // not a number if one is none
  single[0] = largest;
  const e = largest === 0 ? 0 : (bitsOfSingle[0] >>> 23) - 126;
  if (e > LARGEST) throw new RangeError(`a magnitude of ${largest}`);
  return Math.max(e, least);
}

/** 2^e for −126 ≤ e ≤ 127, from its bits. */
function power(e) {
  bitsOfSingle[0] = (e + 127) << 23;
  return single[0];
}

/** `x`, of magnitudes below 2^e, rounded to the multiples of 2^(e − bits), as doubles: sums of products are exact. */
function onGrid(x, e, bits, out = new Float64Array(x.length)) {
  const c = fround(1.5 * power(e + 23 - bits));
  for (let i = 0; i < x.length; i++) out[i] = fround(fround(x[i] + c) - c);
  return out;
}

// functions.py

const singles = (...numbers) => numbers.map(fround);
const POLYNOMIAL = singles(1.5453163e-4, 1.3390863e-3, 9.6180830e-3, 5.5503570e-2, 2.4022651e-1, 6.9314718e-1);
const [P0, P1, P2, P3, P4, P5] = POLYNOMIAL; // (2^r − 1) / r on −½ … ½
const LOG2_E = 1.4426950408889634;
const BIASED = 1.5 * 2 ** 23 + 127; // x + this − this: x rounded; the last 9 bits of x + this: the exponent of 2^x
const POWERS = Float32Array.from({length: 255}, (_, biased) => (biased ? power(biased - 127) : 0));

/** t rounded to an integer. */
const rounded = (t) => fround(fround(t + BIASED) - BIASED);

/** 2^r − 1 for −½ ≤ r ≤ ½. */
function fraction(r) {
  let b = fround(r * P0);
  b = fround(fround(b + P1) * r);
  b = fround(fround(b + P2) * r);
  b = fround(fround(b + P3) * r);
  b = fround(fround(b + P4) * r);
  return fround(fround(b + P5) * r);
}

/** 2^t − 1 for −126 < t < 127. */
function powerLess1(t) {
  const k = rounded(t), whole = POWERS[k + 127];
  return fround(fround(fraction(fround(t - k)) * whole) + fround(whole - 1));
}

const cut = (x, low, high, factor) => fround(Math.min(Math.max(x, low), high) * factor);
const [TANH_END, TWICE_LOG2_E, MINUS_LOG2_E, ONE_LOG2_E] = singles(9.1, 2 * LOG2_E, -LOG2_E, LOG2_E);

/** (e^2x − 1) / (e^2x + 1). */
function tanh(x) {
  const b = powerLess1(cut(x, -TANH_END, TANH_END, TWICE_LOG2_E));
  return fround(b / fround(b + 2));
}

/** 1 / (1 + e^−x). */
function logistic(x) {
  return fround(1 / fround(powerLess1(cut(x, -87, 87, MINUS_LOG2_E)) + 2));
}

/** e^x for −87 ≤ x ≤ 88. */
function exp(x) {
  const t = cut(x, -87, 88, ONE_LOG2_E), k = rounded(t), whole = POWERS[k + 127];
  return fround(fround(fraction(fround(t - k)) * whole) + whole);
}

/** Each e^x as a fraction of their sum. */
function softmax(x) {
  const largest = Math.max(...x), grid = 1.5 * 2 ** 12;
  const powers = x.map((value) => exp(fround(value - largest)));
  const sum = fround(powers.reduce((all, one) => all + (one + grid - grid), 0));
  return powers.map((value) => value / sum);
}

const [INNER, OUTER] = singles(2 / 3, 1.7159);
const ACTIVATIONS = {
  sigmoid: logistic,
  "scaled-tanh": (x) => fround(tanh(fround(x * INNER)) * OUTER),
  tanh,
  relu: (x) => (x > 0 ? x : 0),
};

// nn.py: layers; exponents of bounds below which inputs share a grid

const INPUTS = 1, BOUNDED = 1, UNBOUNDED = 3, DISTANCES = 3;

/** Layers one after the other. */
const chain = (...layers) => (x) => layers.reduce((states, layer) => layer(states), x);

/** A layer that applies a function to each number, in place. */
const each = (squash) => (x) => {
  for (let i = 0; i < x.data.length; i++) x.data[i] = squash(x.data[i]);
  return x;
};

/** A convolution of square kernels. `weight`: {data, shape: [maps, channels, size, size]}; `bias`: {data} or null. */
function convolution(weight, bias, least, padding = 0) {
  const [maps, channels, size] = weight.shape, terms = channels * size * size;
  const bits = weightBits(terms, maps * size * size);
  const matrix = byFours(onGrid(weight.data, exponent(weight.data), bits), maps, terms);
  let windows = new Float64Array(0);
  return (x) => {
    const side = x.side + 2 * padding - size + 1, places = side * side;
    if (windows.length !== terms * places) windows = new Float64Array(terms * places);
    look(onGrid(x.data, exponent(x.data, least), INPUT_BITS), x.side, channels, size, padding, windows);
    const data = product(matrix, windows, terms, places, new Float32Array(maps * places));
    if (bias) for (let i = 0; i < data.length; i++) data[i] += bias.data[(i / places) | 0];
    return {data, maps, side};
  };
}

/** A fully connected layer: a convolution over one pixel. */
function linear(weight, bias, least) {
  const layer = convolution({data: weight.data, shape: [...weight.shape, 1, 1]}, bias, least);
  return (x) => layer({data: x.data, maps: x.data.length, side: 1});
}

/** Rows of a matrix, four interleaved; rows of zeros fill up the last four. */
function byFours(matrix, rows, columns) {
  const found = new Float64Array(4 * Math.ceil(rows / 4) * columns);
  for (let row = 0; row < rows; row++)
    for (let k = 0; k < columns; k++) found[((row >> 2) * columns + k) * 4 + (row & 3)] = matrix[row * columns + k];
  return found;
}

/** What each place of a kernel sees, one place after the other; beyond the field there are zeros. */
function look(field, length, channels, size, padding, windows) {
  const side = length + 2 * padding - size + 1;
  let at = 0;
  for (let top = -padding; top < side - padding; top++)
    for (let left = -padding; left < side - padding; left++)
      for (let channel = 0; channel < channels; channel++)
        for (let row = top; row < top + size; row++) {
          const line = (channel * length + row) * length, inside = row >= 0 && row < length;
          for (let column = left; column < left + size; column++)
            windows[at++] = inside && column >= 0 && column < length ? field[line + column] : 0;
        }
}

/** Each row of the matrix times each place's window: four rows and two places at a time. The sums are exact. */
function product(matrix, windows, terms, places, out) {
  for (let row = 0, start = 0; row * places < out.length; row += 4, start += 4 * terms)
    for (let place = 0; place < places; place += 2) {
      const pair = place + 1 < places, end = start + 4 * terms; // else the last place stands for both
      let a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
      for (let m = start, k = place * terms, l = pair ? k + terms : k; m < end; m += 4, k++, l++) {
        const first = windows[k], second = windows[l];
        const w0 = matrix[m], w1 = matrix[m + 1], w2 = matrix[m + 2], w3 = matrix[m + 3];
        a += w0 * first; b += w1 * first; c += w2 * first; d += w3 * first;
        e += w0 * second; f += w1 * second; g += w2 * second; h += w3 * second;
      }
      let at = row * places + place; // beyond the last row nothing is written
      out[at] = a; out[at + places] = b; out[at + 2 * places] = c; out[at + 3 * places] = d;
      if (!pair) continue;
      at += 1;
      out[at] = e; out[at + places] = f; out[at + 2 * places] = g; out[at + 3 * places] = h;
    }
  return out;
}

/** A layer that makes one pixel of the four of each 2×2 field; an odd last line or column is left out. */
const pooling = (of) => (x) => {
  const side = x.side >> 1, data = new Float32Array(x.maps * side * side);
  for (let map = 0, at = 0; map < x.maps; map++)
    for (let row = 0; row < side; row++)
      for (let column = 0; column < side; column++) {
        const upper = (map * x.side + 2 * row) * x.side + 2 * column, lower = upper + x.side;
        data[at++] = of(x.data[upper], x.data[lower], x.data[upper + 1], x.data[lower + 1]);
      }
  return {data, maps: x.maps, side};
};

const sum4 = (a, b, c, d) => fround(fround(a + b) + fround(c + d));
const POOLINGS = {
  "trainable-sum": pooling(sum4),
  trainable: pooling((a, b, c, d) => sum4(a, b, c, d) * 0.25),
  average: pooling((a, b, c, d) => sum4(a, b, c, d) * 0.25),
  max: pooling((a, b, c, d) => Math.max(a, b, c, d)),
};

/** Each map, less its mean if there are means, times its factor, plus its bias. */
const scaled = (factor, bias, mean = null) => (x) => {
  const pixels = x.side * x.side, data = new Float32Array(x.data.length);
  for (let i = 0; i < data.length; i++) {
    const map = (i / pixels) | 0, value = mean ? fround(x.data[i] - mean[map]) : x.data[i];
    data[i] = fround(value * factor[map]) + bias[map];
  }
  return {...x, data};
};

/** Batch normalisation by the means and variances of training, then ReLU. */
function normRelu(weight, bias, mean, variance) {
  const epsilon = fround(1e-5);
  const factor = weight.map((value, map) => value / fround(Math.sqrt(fround(variance[map] + epsilon))));
  return chain(scaled(factor, bias, mean), each(ACTIVATIONS.relu));
}

/** The mean of each map. */
function mapMeans(x) {
  const pixels = x.side * x.side, terms = onGrid(x.data, exponent(x.data), GRID_BITS);
  const data = Float32Array.from({length: x.maps}, (_, map) => {
    let sum = 0;
    for (let i = map * pixels; i < (map + 1) * pixels; i++) sum += terms[i];
    return sum / pixels;
  });
  return {data, maps: x.maps, side: 1};
}

/** The squared distances between states and codes. */
const distances = (codes) => (x) => {
  const units = x.data.length;
  const squares = codes.data.map((code, i) => {
    const apart = fround(x.data[i % units] - code);
    return apart * apart;
  });
  const terms = onGrid(squares, exponent(squares, DISTANCES), GRID_BITS);
  const data = Float32Array.from({length: codes.shape[0]}, (_, label) => {
    let sum = 0;
    for (let i = label * units; i < (label + 1) * units; i++) sum += terms[i];
    return sum;
  });
  return {data, maps: data.length, side: 1};
};

// networks: lists of [name, layer]

const SIDE = 28, BORDER = 2;

/** Kernels (kernels, size, size) of connected maps as those of all pairs, zero where there is no connection. */
function dense({data, shape: [, size]}, table) {
  const channels = 1 + Math.max(...table.flat()), area = size * size;
  const kernels = new Float32Array(table.length * channels * area);
  table
    .flatMap((seen, map) => seen.map((channel) => map * channels + channel))
    .forEach((slot, i) => kernels.set(data.subarray(i * area, (i + 1) * area), slot * area));
  return {data: kernels, shape: [table.length, channels, size, size]};
}

/** LeNet-5 (lenet5.py): C1 S2 C3 S4 C5 F6 output. */
function lenet5({activation, pooling: {kind}, C3, output}, tensors, table) {
  const squash = each(ACTIVATIONS[activation]), least = activation === "relu" ? UNBOUNDED : BOUNDED;
  const of = (name) => [tensors[`${name}.weight`], tensors[`${name}.bias`]];
  const subsampling = (name) => {
    if (!kind.startsWith("trainable")) return POOLINGS[kind];
    return chain(POOLINGS[kind], scaled(...of(name).map((tensor) => tensor.data)), squash);
  };
  const [kernels, biases] = of("C3");
  const last = output.endsWith("rbf") ? distances(tensors["output.weight"]) : linear(...of("output"), least);
  return [
    ["C1", chain(convolution(...of("C1"), INPUTS), squash)],
    ["S2", subsampling("S2")],
    ["C3", chain(convolution(C3 === "dense" ? kernels : dense(kernels, table), biases, least), squash)],
    ["S4", subsampling("S4")],
    ["C5", chain(linear(...of("C5"), least), squash)],
    ["F6", chain(linear(...of("F6"), least), squash)],
    ["output", output === "squashed" ? chain(last, squash) : last],
  ];
}

/** The network of today (convnet.py): C1 S2 N2 C3 N3 … output. */
function convnet({stages}, tensors) {
  const layers = [["field", inner]];
  let number = 0;
  stages.forEach((stage, i) =>
    stage.forEach(({padding}, j) => {
      number += 1;
      const weight = tensors[`C${number}.weight`];
      layers.push([`C${number}`, convolution(weight, null, number === 1 ? INPUTS : UNBOUNDED, padding)]);
      if (j === stage.length - 1 && i < stages.length - 1) {
        number += 1;
        layers.push([`S${number}`, POOLINGS.max]);
      }
      const norm = ["weight", "bias", "running_mean", "running_var"].map((name) => tensors[`N${number}.${name}`].data);
      layers.push([`N${number}`, normRelu(...norm)]);
    }),
  );
  layers.push(["mean", mapMeans], ["output", linear(tensors["output.weight"], tensors["output.bias"], UNBOUNDED)]);
  return layers;
}

/** The 28×28 image of a field with its border. */
function inner(x) {
  const data = new Float32Array(SIDE * SIDE);
  for (let row = 0; row < SIDE; row++) {
    const start = (row + BORDER) * x.side + BORDER;
    data.set(x.data.subarray(start, start + SIDE), row * SIDE);
  }
  return {data, maps: 1, side: SIDE};
}

/** An image (28 × 28 bytes, ink 255 on 0) as a network sees it: scaled, with a border of background. */
function inputs(image, {background, ink}) {
  const side = SIDE + 2 * BORDER, data = new Float32Array(side * side).fill(background);
  const factor = fround((ink - background) / 255), least = fround(background);
  for (let row = 0; row < SIDE; row++)
    for (let column = 0; column < SIDE; column++)
      data[(row + BORDER) * side + column + BORDER] = fround(image[row * SIDE + column] * factor) + least;
  return {data, maps: 1, side};
}

/** The bytes of a base64 text. */
const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

/** Tensors by name, from a list of names and shapes and their little-endian singles one after the other, in base64. */
function unpacked(shapes, text) {
  const view = new DataView(bytes(text).buffer), tensors = {};
  let at = 0;
  for (const [name, shape] of shapes) {
    const count = shape.reduce((all, one) => all * one, 1);
    tensors[name] = {shape, data: Float32Array.from({length: count}, (_, i) => view.getFloat32(at + 4 * i, true))};
    at += 4 * count;
  }
  return tensors;
}

/** A trained network from its description (page.py): a function of images. */
function recogniser({network, pixels, shapes, weights}, table) {
  const tensors = unpacked(shapes, weights);
  const layers = network.stages ? convnet(network, tensors) : lenet5(network, tensors, table);
  const nearest = (network.output ?? "").endsWith("rbf");
  const likely = network.stages || network.output === "softmax";

  /** The answer: class, the ten scores, probabilities where there are some, and each layer's states by name. */
  return (image) => {
    const states = {};
    let x = inputs(image, pixels);
    for (const [name, layer] of layers) x = states[name] = layer(x);
    const scores = x.data, best = nearest ? Math.min(...scores) : Math.max(...scores);
    return {digit: scores.indexOf(best), scores, probabilities: likely ? softmax(scores) : null, states};
  };
}

export {bytes, recogniser};
