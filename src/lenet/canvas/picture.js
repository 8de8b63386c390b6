/* Drawings and pictures as MNIST has digits: 28×28 bytes, ink 255 on 0 (LeCun 1998, §III.A). The digit fits a box of
20×20 pixels, its proportions kept, and its centre of mass lies at the field's centre. */

const FIELD = 28, BOX = 20, CENTRE = 14; // the pixel, from 0, whose middle is the field's centre in MNIST's files
const FAINT = 0.2; // of a picture's contrast: paper's shadows and noise

/** The ink of a drawing on a transparent canvas. */
const inkOfDrawing = ({data}) => new Float32Array(data.length / 4).map((_, i) => data[4 * i + 3]);

/** The ink of a picture, 0 … 255, whether it is dark on light or light on dark; null if it shows nothing. */
function inkOfPicture({data, width, height}) {
  const grey = new Float32Array(width * height).map((_, i) => {
    const luminance = (299 * data[4 * i] + 587 * data[4 * i + 1] + 114 * data[4 * i + 2]) / 1000;
    return 255 + (data[4 * i + 3] / 255) * (luminance - 255); // on white
  });
  const edge = grey.filter((_, i) => {
    const row = Math.floor(i / width), column = i % width;
    return row === 0 || row === height - 1 || column === 0 || column === width - 1;
  });
  const background = edge.sort()[edge.length >> 1];
  const darker = background - grey.reduce((a, b) => Math.min(a, b));
  const lighter = grey.reduce((a, b) => Math.max(a, b)) - background;
  const contrast = Math.max(darker, lighter), sign = darker > lighter ? -1 : 1;
  if (contrast < 16) return null;
  if (grey.length === FIELD * FIELD) return grey.map((value) => Math.max(0, sign * (value - background)));
  return grey.map((value) => {
    const share = (sign * (value - background)) / contrast;
    return (255 * Math.max(0, share - FAINT)) / (1 - FAINT);
  });
}

/** The smallest box around all ink: left, top, width, height; null if there is none. */
function box(ink, width) {
  let [left, top, right, bottom] = [width, Infinity, -1, -1];
  ink.forEach((value, i) => {
    if (value < 1) return;
    const row = Math.floor(i / width), column = i % width;
    [left, right, top, bottom] = [Math.min(left, column), Math.max(right, column), Math.min(top, row), row];
  });
  return bottom < 0 ? null : [left, top, right - left + 1, bottom - top + 1];
}

/** A box of a field as `columns` × `rows` pixels, each the mean of what it covers. */
function resampled(ink, width, [left, top, across, down], columns, rows) {
  const out = new Float64Array(columns * rows);
  const covered = (i, length, pixels, add) => {
    const start = (i * pixels) / length, end = ((i + 1) * pixels) / length;
    for (let at = Math.floor(start); at < end; at++) add(at, Math.min(end, at + 1) - Math.max(start, at));
  };
  for (let y = 0; y < down; y++)
    for (let x = 0; x < across; x++) {
      const value = ink[(top + y) * width + left + x];
      if (!value) continue;
      covered(y, down, rows, (row, high) => {
        if (row < rows)
          covered(x, across, columns, (column, wide) => {
            if (column < columns) out[row * columns + column] += value * high * wide;
          });
      });
    }
  return out;
}

/** Ink of any size as a digit of MNIST, (28 · 28) bytes; null if there is none. */
function centred(ink, width) {
  const found = box(ink, width);
  if (!found) return null;
  const [, , across, down] = found, scale = BOX / Math.max(across, down);
  const [columns, rows] = [across, down].map((length) => Math.max(1, Math.round(length * scale)));
  const small = resampled(ink, width, found, columns, rows), peak = Math.max(...small);
  let [mass, x, y] = [0, 0, 0];
  small.forEach((value, i) => {
    mass += value;
    x += value * (i % columns);
    y += value * Math.floor(i / columns);
  });
  const place = (centre, pixels) => Math.min(Math.max(Math.round(CENTRE - centre), 0), FIELD - pixels);
  const left = place(x / mass, columns), top = place(y / mass, rows), image = new Uint8Array(FIELD * FIELD);
  small.forEach((value, i) => {
    image[(top + Math.floor(i / columns)) * FIELD + left + (i % columns)] = Math.round((255 * value) / peak);
  });
  return image;
}

/** A picture as a digit of MNIST; one of 28×28 pixels is one already. Null if it shows nothing. */
function digitOf(picture) {
  const ink = inkOfPicture(picture);
  if (!ink) return null;
  return ink.length === FIELD * FIELD ? Uint8Array.from(ink, Math.round) : centred(ink, picture.width);
}

export {centred, digitOf, inkOfDrawing};
