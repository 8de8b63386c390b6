"""The loops of layers, forward and backward, over the buffers of fast.py.

Numbers lie in memory as [network, map, line · column · digit], the digits innermost: a shift by a pixel is an offset,
and a convolution adds shifted stretches of numbers, each times a weight. A map that a convolution makes keeps the width
of what it sees; its last four columns mean nothing and are left out by what reads it.
"""

import numpy as np

from lenet.kernels.compiling import exactly, inlined, rounding
from lenet.kernels.steps import (
    GRID_BITS,
    INPUT_BITS,
    LEAST,
    TWO,
    ZERO,
    bits_of,
    constant,
    f32,
    largest,
    magnitude,
    number_of,
    on_grid,
    pull,
    squash,
    total,
)  # fmt: skip

TAPS = 5  # in a line of a kernel


@rounding
def take_weights(values, starts, bits, rows, read, out, found):
    """Parameters [network, all], those of products on their grids, to ``out`` one parameter after another.

    ``bits`` 0: as it is. The largest magnitude of each goes to its row of ``found`` [row, network]. Those that are
    ``read`` where they are get no more than that.
    """
    networks = len(values)
    for t in range(bits.size):
        size = starts[t + 1] - starts[t]
        for s in range(networks):
            x, its = values[s, starts[t] : starts[t + 1]], out[starts[t] * networks + s * size :][:size]
            if bits[t]:
                most = largest(x)
                found[rows[t], s] = number_of(most)
                if not read[t]:
                    on_grid(x, most, bits[t], its)
            else:
                for p in range(size):
                    its[p] = x[p]


@rounding
def give_gradients(grads, starts, read, out):
    """The gradients of parameters, one after another, to [network, all], but for those that are there already."""
    networks = len(out)
    for t in np.flatnonzero(~read):
        size = starts[t + 1] - starts[t]
        for s in range(networks):
            x, its = grads[starts[t] * networks + s * size :][:size], out[s, starts[t] : starts[t + 1]]
            for p in range(size):
                its[p] = x[p]


@rounding
def take_inputs(x, outer, bounded, least, out, found):
    """A layer's inputs outer · x [network, pixel, digit], each digit's on its own grid, or all on one if bounded.

    ``out`` [network, pixel · digit] may be longer. ``found``: the largest magnitude in each network.
    """
    networks, pixels, digits = x.shape
    if bounded or digits == 1:
        for s in range(networks):
            row = x[s].reshape(-1)
            most = np.int32(0) if bounded else largest(row)
            found[s] = number_of(most)
            c = constant(most, least, INPUT_BITS)
            for p in range(row.size):
                out[s, p] = (row[p] * outer + c) - c
        return
    mosts, constants = np.empty(digits, np.int32), np.empty(digits, np.float32)
    for s in range(networks):
        mosts[:] = 0
        for k in range(pixels):
            row = x[s, k]
            for p in range(digits):
                its = magnitude(row[p])
                mosts[p] = its if its > mosts[p] else mosts[p]
        top = np.int32(0)
        for p in range(digits):
            top = max(top, mosts[p])
            constants[p] = constant(mosts[p], least, INPUT_BITS)
        found[s] = number_of(top)
        for k in range(pixels):
            row, its = x[s, k], out[s, k * digits : (k + 1) * digits]
            for p in range(digits):
                its[p] = (row[p] * outer + constants[p]) - constants[p]


@rounding
def share_grid(x, found, least, bits):
    """The inputs on one grid for all digits, in place."""
    for s in range(len(x)):
        c = constant(bits_of(found[s]), least, bits)
        for p in range(x.shape[1]):
            x[s, p] = (f32(x[s, p]) + c) - c


# convolutions


@exactly
def _add_shifted(sums, x, w, step):
    x0, x1, x2, x3, x4 = x, x[step:], x[2 * step :], x[3 * step :], x[4 * step :]
    w0, w1, w2, w3, w4 = w[0], w[1], w[2], w[3], w[4]
    for p in range(sums.size):
        sums[p] += w0 * x0[p] + w1 * x1[p] + w2 * x2[p] + w3 * x3[p] + w4 * x4[p]


@exactly
def _add_products(sums, d, x, step):
    x0, x1, x2, x3, x4 = x, x[step:], x[2 * step :], x[3 * step :], x[4 * step :]
    a = b = c = e = g = 0.0
    for p in range(d.size):
        a += d[p] * x0[p]
        b += d[p] * x1[p]
        c += d[p] * x2[p]
        e += d[p] * x3[p]
        g += d[p] * x4[p]
    sums[0] += a
    sums[1] += b
    sums[2] += c
    sums[3] += e
    sums[4] += g


@rounding
def _shift(sums, bias, out):
    for p in range(out.size):
        out[p] = f32(sums[p]) + bias


@rounding
def convolve(x, weight, bias, ends, seen, apart, length, line, step, kind, inner, value):
    """A convolution, squashed: x [network, map · pixel · digit, more] → value [network, map, pixel · digit].

    ``weight`` [network, pair, 5, 5] is of pairs of connected maps, ordered by the map that they make: ``ends`` tells
    where those of a map begin and end, ``seen`` which map each sees. Stretches are computed at a time: they begin
    ``apart`` numbers from each other and are ``length`` long, a line without its last columns or many short lines with
    them. ``line`` numbers are in a line, and ``step``, one for each digit, in a pixel.
    """
    networks, maps, size = value.shape
    sums = np.empty(length)
    for s in range(networks):
        for start in range(0, size, apart):
            its = sums[: size - start]
            for m in range(maps):
                its[:] = 0.0
                for k in range(ends[m], ends[m + 1]):
                    for i in range(TAPS):
                        at = seen[k] * (size + (TAPS - 1) * line) + start + i * line
                        _add_shifted(its, x[s, at:], weight[s, k, i], step)
                out = value[s, m, start : start + its.size]
                _shift(its, f32(bias[s, m]), out)
                squash(kind, inner, out)


@inlined
def _pooled(a, b, c, d, by_max, share):
    return max(max(a, b), max(c, d)) if by_max else ((a + b) + (c + d)) * share


@rounding
def pool(value, outer, by_max, share, line, half, y):
    """Fields of 2×2 pixels of outer · value to their largest, or to share · their sum [network, map, field, digit]."""
    networks, maps, _, digits = y.shape
    right, below = np.uint64(digits), np.uint64(line)
    for s in range(networks):
        for m in range(maps):
            for row in range(half):
                x, its = value[s, m, 2 * row * line :], y[s, m, row * half : (row + 1) * half]
                if digits == 1:  # for one loop over a line
                    for p in range(np.uint64(half)):
                        at = p + p
                        a, b = x[at] * outer, x[at + below] * outer
                        c, d = x[at + right] * outer, x[at + below + right] * outer
                        its[p, 0] = _pooled(a, b, c, d, by_max, share)
                    continue
                for column in range(half):
                    some, out = x[2 * column * digits :], its[column]
                    for p in range(right):
                        a, b = some[p] * outer, some[p + below] * outer
                        c, d = some[p + right] * outer, some[p + below + right] * outer
                        out[p] = _pooled(a, b, c, d, by_max, share)


@inlined
def _spread(g, x, p, right, below, outer, by_max, share, out):
    """The gradient at one field's pixels."""
    if by_max:
        a, b = x[p] * outer, x[p + right] * outer
        c, d = x[p + below] * outer, x[p + below + right] * outer
        most = max(max(a, b), max(c, d))
        second = (b == most) & (a != most)
        third = (c == most) & (a != most) & (b != most)
        out[p] = g if a == most else ZERO
        out[p + right] = g if second else ZERO
        out[p + below] = g if third else ZERO
        out[p + below + right] = ZERO if (a == most) | second | third else g
    else:
        g = g * share
        out[p] = g
        out[p + right] = g
        out[p + below] = g
        out[p + below + right] = g


@rounding
def spread(dy, value, outer, by_max, share, line, half, grad):
    """From gradients at pooled pixels, those at their fields: share · each, or all of it to the first largest pixel."""
    networks, maps, _, digits = dy.shape
    # unsigned, into one slice: then the compiler considers no negative offsets, nor whether four slices overlap
    right, below = np.uint64(digits), np.uint64(line)
    for s in range(networks):
        for m in range(maps):
            for row in range(half):
                start = 2 * row * line
                its, x, out = dy[s, m, row * half : (row + 1) * half], value[s, m, start:], grad[s, m, start:]
                if digits == 1:  # for one loop over a line
                    for p in range(np.uint64(half)):
                        _spread(f32(its[p, 0]), x, p + p, right, below, outer, by_max, share, out)
                    continue
                for column in range(half):
                    at, end = 2 * column * digits, 2 * (column + 1) * digits + line
                    given, seen, made = its[column], x[at:end], out[at:end]
                    for p in range(right):
                        _spread(f32(given[p]), seen, p, right, below, outer, by_max, share, made)


@rounding
def pull_convolution(grad, value, apart, length, line, kind, factor, bits, d, dbias, found):
    """From gradients at f's values, those at the sums, on a grid, and at the biases. ``grad`` is used up.

    ``d`` [network, map, pixel · digit] has five lines of zeros before and four after. Stretches are those of
    ``convolve``; where they have a line's last columns, the gradients there are 0.
    """
    networks, maps, size = value.shape
    for s in range(networks):
        most = np.int32(0)
        for m in range(maps):
            for at in range(0, size, apart):
                end = min(at + length, size)
                most = max(most, pull(kind, factor, grad[s, m, at:end], value[s, m, at:end]))
        found[s] = number_of(most)
        for m in range(maps):
            summed = 0.0
            for at in range(0, size, apart):
                end, to = min(at + length, size), at + TAPS * line
                its = grad[s, m, at:end]
                summed += on_grid(its, most, bits, d[s, m, to : to + its.size])
            dbias[s, m] = summed


@rounding
def convolution_weights(d, x, ends, seen, apart, length, line, step, dweight):
    """The gradients at a convolution's weights."""
    networks, maps, padded = d.shape
    size = padded - (2 * TAPS - 1) * line
    dweight[:] = 0.0
    for s in range(networks):
        for start in range(0, size, apart):
            first = start + TAPS * line
            for m in range(maps):
                its = d[s, m, first : first + min(length, size - start)]
                for k in range(ends[m], ends[m + 1]):
                    for i in range(TAPS):
                        at = seen[k] * (size + (TAPS - 1) * line) + start + i * line
                        _add_products(dweight[s, k, i], its, x[s, at:], step)


@rounding
def convolution_inputs(d, weight, ends, pairs, made, apart, line, step, dx):
    """The gradients at a convolution's inputs: a convolution of those at its sums, by weights the other way round.

    The pairs that see a map lie from one of ``ends`` to the next in ``pairs``; each helps to make the map ``made``.
    """
    networks, maps, size = dx.shape
    turned = np.empty(TAPS)
    for s in range(networks):
        for start in range(0, size, apart):
            for c in range(maps):
                its = dx[s, c, start : min(start + apart, size)]
                its[:] = 0.0
                for k in pairs[ends[c] : ends[c + 1]]:
                    for i in range(TAPS):
                        turned[:] = weight[s, k, i, ::-1]
                        at = start + (TAPS - i) * line - (TAPS - 1) * step
                        _add_shifted(its, d[s, made[k], at:], turned, step)


# trainable subsampling, full layers, radial basis functions


@rounding
def scale(y, weight, bias, kind, inner, value):
    """Each map times its weight, plus its bias, squashed [network, map, pixel · digit]."""
    networks, maps, size = y.shape
    for s in range(networks):
        for m in range(maps):
            w, b, x, out = f32(weight[s, m]), f32(bias[s, m]), y[s, m], value[s, m]
            for p in range(size):
                out[p] = x[p] * w + b
            squash(kind, inner, out)


@rounding
def pull_scale(dy, y, value, weight, kind, factor, grad, product, dx, dweight, dbias, found, found_products):
    """From gradients at the squashed values, those at y and at weights and biases. ``grad``, ``product``: scratch."""
    networks, maps, size = y.shape
    for s in range(networks):
        most = most_product = np.int32(0)
        for m in range(maps):
            w, g, its, out = f32(weight[s, m]), grad[s, m], product[s, m], dx[s, m]
            for p in range(size):
                g[p] = dy[s, m, p]
            most = max(most, pull(kind, factor, g, value[s, m]))
            for p in range(size):
                out[p] = g[p] * w
                its[p] = g[p] * y[s, m, p]
            most_product = max(most_product, largest(its))
        found[s], found_products[s] = number_of(most), number_of(most_product)
        scratch = np.empty(size)
        for m in range(maps):
            dweight[s, m] = on_grid(product[s, m], most_product, GRID_BITS, scratch)
            dbias[s, m] = on_grid(grad[s, m], most, GRID_BITS, scratch)


# A full layer of one digit reads its weights once and writes their gradients once, in single precision: to copy them
# would take longer than to compute with them.


@exactly
def _dot(w, x):
    its = 0.0
    for k in range(x.size):
        its += w[k] * x[k]
    return its


@rounding
def multiply_one(values, start, most, bits, x, sums):
    """A full layer's sums for one digit: x [network, input] → [network, unit, 1].

    Its weights are in ``values`` [network, all] from ``start`` on, not yet on their grid, that of magnitudes up to
    ``most`` of each network.
    """
    networks, units, _ = sums.shape
    inputs = x.shape[1]
    rounded = np.empty(inputs)
    for s in range(networks):
        c = constant(bits_of(most[s]), LEAST, bits)
        for m in range(units):
            w = values[s, start + m * inputs :]
            for k in range(inputs):  # apart from the sum, in which nothing may be rounded
                rounded[k] = (w[k] + c) - c
            sums[s, m, 0] = _dot(rounded, x[s])


@rounding
def multiply_one_back(d, values, gradients, start, most, bits, x, dx):
    """The gradients at a full layer's weights, to their place in ``gradients``, and at its inputs."""
    networks, units, _ = d.shape
    inputs = x.shape[1]
    for s in range(networks):
        c = constant(bits_of(most[s]), LEAST, bits)
        its = dx[s].reshape(-1)
        its[:] = 0.0
        for m in range(units):
            at = start + m * inputs
            g, w, out = d[s, m, 0], values[s, at:], gradients[s, at:]
            for k in range(inputs):
                out[k] = g * x[s, k]
                its[k] += g * np.float64((w[k] + c) - c)


@rounding
def shift(sums, bias, kind, inner, value):
    """A full layer's sums plus bias, squashed [network, unit, digit]."""
    networks, units = bias.shape
    for s in range(networks):
        for m in range(units):
            _shift(sums[s, m], f32(bias[s, m]), value[s, m])
        squash(kind, inner, value[s].reshape(-1))


@rounding
def pull_full(dy, value, kind, factor, bits, grad, d, dbias, found):
    """From gradients at a full layer's values, those at its sums, on a grid, and at its biases. ``grad``: scratch."""
    networks, units, _ = dy.shape
    for s in range(networks):
        given, its = dy[s].reshape(-1), grad[s].reshape(-1)
        for p in range(its.size):
            its[p] = given[p]
        most = pull(kind, factor, its, value[s].reshape(-1))
        found[s] = number_of(most)
        on_grid(its, most, bits, d[s].reshape(-1))
        for m in range(units):
            dbias[s, m] = total(d[s, m])


@rounding
def distances(x, outer, codes, least, value, found):
    """Squared distances of states outer · x [network, unit, digit] to codes [network, class, unit]."""
    networks, units, digits = x.shape
    classes = codes.shape[1]
    states, squares, scratch = np.empty(units, f32), np.empty((classes, units), f32), np.empty(units)
    for s in range(networks):
        top = np.int32(0)
        for p in range(digits):
            for k in range(units):
                states[k] = x[s, k, p] * outer
            for c in range(classes):
                for k in range(units):
                    apart = states[k] - f32(codes[s, c, k])
                    squares[c, k] = apart * apart
            most = largest(squares.reshape(-1))
            top = max(top, most)
            grid = constant(most, least, GRID_BITS)
            for c in range(classes):
                for k in range(units):
                    scratch[k] = (squares[c, k] + grid) - grid
                value[s, c, p] = total(scratch)
        found[s] = number_of(top)


@rounding
def pull_distances(dy, x, outer, codes, dx, dcodes, found):
    """From gradients at the distances, those at states and codes."""
    networks, classes, units = codes.shape
    digits = dy.shape[2]
    pulled, summed = np.empty((digits, classes, units), f32), np.empty(units)
    for s in range(networks):
        for p in range(digits):
            for c in range(classes):
                g, its = f32(dy[s, c, p]) * TWO, pulled[p, c]
                for k in range(units):
                    its[k] = g * (x[s, k, p] * outer - f32(codes[s, c, k]))
        most = largest(pulled.reshape(-1))
        found[s] = number_of(most)
        grid = constant(most, LEAST, GRID_BITS)
        dcodes[s] = 0.0
        for p in range(digits):
            summed[:] = 0.0
            for c in range(classes):
                for k in range(units):
                    its = np.float64((pulled[p, c, k] + grid) - grid)
                    summed[k] += its
                    dcodes[s, c, k] -= its
            for k in range(units):
                dx[s, k, p] = summed[k]
