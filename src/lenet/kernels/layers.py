"""The loops of layers, forward and backward, over the buffers of fast.py.

Numbers lie in memory as [network, map, line · column · digit], the digits innermost: a shift by a pixel is an offset,
and a convolution adds shifted stretches of numbers, each times a weight. A map that a convolution makes keeps the width
of what it sees; its last four columns mean nothing and are left out by what reads it.
"""

import numpy as np

from lenet.kernels.compiling import exactly, rounding
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
def take_weights(values, starts, bits, rows, out, found):
    """Parameters [network, all], those of products on their grids, to ``out`` one parameter after another.

    ``bits`` 0: as it is. The largest magnitude of each goes to its row of ``found`` [row, network].
    """
    networks = len(values)
    for t in range(bits.size):
        size = starts[t + 1] - starts[t]
        for s in range(networks):
            x, its = values[s, starts[t] : starts[t + 1]], out[starts[t] * networks + s * size :][:size]
            if bits[t]:
                most = largest(x)
                found[rows[t], s] = number_of(most)
                on_grid(x, most, bits[t], its)
            else:
                for p in range(size):
                    its[p] = x[p]


@rounding
def give_gradients(grads, starts, out):
    """The gradients of parameters, one after another, to [network, all]."""
    networks = len(out)
    for t in range(len(starts) - 1):
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
    mosts, constants = np.empty(digits, np.int32), np.empty(digits, np.float32)
    for s in range(networks):
        top = np.int32(0)
        mosts[:] = 0
        if not bounded:
            for k in range(pixels):
                row = x[s, k]
                for p in range(digits):
                    its = magnitude(row[p])
                    mosts[p] = its if its > mosts[p] else mosts[p]
            for p in range(digits):
                top = max(top, mosts[p])
        found[s] = number_of(top)
        for p in range(digits):
            constants[p] = constant(mosts[p], least, INPUT_BITS)
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


@rounding
def pool(value, outer, by_max, share, line, half, y):
    """Fields of 2×2 pixels of outer · value to their largest, or to share · their sum [network, map, field, digit]."""
    networks, maps, fields, digits = y.shape
    for s in range(networks):
        for m in range(maps):
            for field in range(fields):
                at = 2 * (field // half) * line + 2 * (field % half) * digits
                upper, lower, out = value[s, m, at:], value[s, m, at + line :], y[s, m, field]
                upper2, lower2 = upper[digits:], lower[digits:]
                for p in range(digits):
                    a, b, c, d = upper[p] * outer, lower[p] * outer, upper2[p] * outer, lower2[p] * outer
                    if by_max:
                        out[p] = max(max(a, b), max(c, d))
                    else:
                        out[p] = ((a + b) + (c + d)) * share


@rounding
def spread(dy, value, outer, by_max, share, line, half, grad):
    """From gradients at pooled pixels, those at their fields: share · each, or all of it to the first largest pixel."""
    networks, maps, _, digits = dy.shape
    # unsigned, into one slice: then the compiler considers no negative offsets, nor whether four slices overlap
    right, below = np.uint64(digits), np.uint64(line)
    for s in range(networks):
        for m in range(maps):
            for field in range(half * half):
                at = 2 * (field // half) * line + 2 * (field % half) * digits
                end = at + line + 2 * digits
                its, x, out = dy[s, m, field], value[s, m, at:end], grad[s, m, at:end]
                if by_max:
                    for p in range(right):
                        g = f32(its[p])
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
                    for p in range(right):
                        g = f32(its[p]) * share
                        out[p] = g
                        out[p + right] = g
                        out[p + below] = g
                        out[p + below + right] = g


@rounding
def pull_convolution(grad, value, line, used, kind, factor, bits, d, dbias, found):
    """From gradients at f's values, those at the sums, on a grid, and at the biases. ``grad`` is used up.

    ``d`` [network, map, pixel · digit] has five lines of zeros before and four after. Of each line, so many numbers are
    ``used``.
    """
    networks, maps, size = value.shape
    for s in range(networks):
        most = np.int32(0)
        for m in range(maps):
            for at in range(0, size, line):
                most = max(most, pull(kind, factor, grad[s, m, at : at + used], value[s, m, at : at + used]))
        found[s] = number_of(most)
        for m in range(maps):
            summed = 0.0
            for at in range(0, size, line):
                to = at + TAPS * line
                summed += on_grid(grad[s, m, at : at + used], most, bits, d[s, m, to : to + used])
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


@exactly
def multiply_one(weight, x, sums):
    """A full layer's sums for one digit, for which libraries take longer: x [network, input] → [network, unit, 1]."""
    networks, units, inputs = weight.shape
    for s in range(networks):
        for m in range(units):
            its = 0.0
            for k in range(inputs):
                its += weight[s, m, k] * x[s, k]
            sums[s, m, 0] = its


@exactly
def multiply_one_back(d, weight, x, dweight, dx):
    """The gradients at a full layer's weights and at its inputs [network, input, 1] for one digit."""
    networks, units, inputs = weight.shape
    for s in range(networks):
        dx[s] = 0.0
        for m in range(units):
            its = d[s, m, 0]
            for k in range(inputs):
                dweight[s, m, k] = its * x[s, k]
                dx[s, k, 0] += its * weight[s, m, k]


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
    mosts, sums = np.empty(digits, np.int32), np.empty(digits)
    for s in range(networks):
        mosts[:] = 0
        for c in range(codes.shape[1]):
            for k in range(units):
                code = f32(codes[s, c, k])
                for p in range(digits):
                    apart = x[s, k, p] * outer - code
                    mosts[p] = max(mosts[p], np.int32(magnitude(apart * apart)))
        top = np.int32(0)
        for p in range(digits):
            top = max(top, mosts[p])
        found[s] = number_of(top)
        for c in range(codes.shape[1]):
            sums[:] = 0.0
            for k in range(units):
                code = f32(codes[s, c, k])
                for p in range(digits):
                    apart = x[s, k, p] * outer - code
                    grid = constant(mosts[p], least, GRID_BITS)
                    sums[p] += np.float64((apart * apart + grid) - grid)
            for p in range(digits):
                value[s, c, p] = sums[p]


@rounding
def pull_distances(dy, x, outer, codes, dx, dcodes, found):
    """From gradients at the distances, those at states and codes."""
    networks, classes, units = codes.shape
    digits = dy.shape[2]
    for s in range(networks):
        most = np.int32(0)
        for c in range(classes):
            for k in range(units):
                code = f32(codes[s, c, k])
                for p in range(digits):
                    pulled = (f32(dy[s, c, p]) * TWO) * (x[s, k, p] * outer - code)
                    most = max(most, np.int32(magnitude(pulled)))
        found[s] = number_of(most)
        grid = constant(most, LEAST, GRID_BITS)
        dx[s] = 0.0
        for c in range(classes):
            for k in range(units):
                code, summed = f32(codes[s, c, k]), 0.0
                for p in range(digits):
                    pulled = (f32(dy[s, c, p]) * TWO) * (x[s, k, p] * outer - code)
                    its = np.float64((pulled + grid) - grid)
                    dx[s, k, p] += its
                    summed += its
                dcodes[s, c, k] = 0.0 - summed
