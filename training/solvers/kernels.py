"""The compiled loops of the solvers: each reads a sparse matrix once, for many problems, and copies none of it.

scipy's products need every operand in one type and read the matrix twice for a gradient. These loops read it once, add
float32 values into float64 sums, and release the interpreter, so that threads share one matrix. They are plain loops
in IEEE arithmetic (no fast-math), so that a result depends on its operands only. numba compiles them on first use and
keeps them in its cache beside this file (or in the user's cache directory where that is not writable).

Indices come as unsigned integers (`csr_parts`): numba then leaves out the check for negative ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

LANES = 5  # columns of weights that travel together: as many as a study has folds; a lane that is not used costs little


def csr_parts(X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(indptr uint64, indices unsigned, data) of a CSR or CSC matrix, without copying indices or data."""
    return X.indptr.astype(np.uint64), X.indices.view(f"u{X.indices.itemsize}"), X.data


@njit(nogil=True, cache=True)
def _gather(indptr, indices, data, weights, i, z):  # type: ignore[no-untyped-def]
    """Row i of X times `weights` [blocks, K, LANES] into `z` [blocks * LANES]."""
    for b in range(weights.shape[0]):
        w = weights[b]
        s0 = s1 = s2 = s3 = s4 = 0.0  # a loop over lanes would add in memory, not in registers
        for k in range(indptr[i], indptr[i + 1]):
            j, v = indices[k], np.float64(data[k])
            s0 += v * w[j, 0]
            s1 += v * w[j, 1]
            s2 += v * w[j, 2]
            s3 += v * w[j, 3]
            s4 += v * w[j, 4]
        at = b * LANES
        z[at], z[at + 1], z[at + 2], z[at + 3], z[at + 4] = s0, s1, s2, s3, s4


@njit(nogil=True, cache=True)
def products(indptr, indices, data, weights, first, last, out):  # type: ignore[no-untyped-def]
    """Rows first .. last of X times `weights` [blocks, K, LANES] into `out` [N, blocks * LANES]."""
    for i in range(first, last):
        _gather(indptr, indices, data, weights, i, out[i])


@njit(nogil=True, cache=True)
def row_products(indptr, indices, data, factors, rows, first, last, out):  # type: ignore[no-untyped-def]
    """Inner products of rows of X with those before them, under several weights of the columns at once.

    Args:
        indptr, indices, data: X, CSR [N, K].
        factors: float64 [K, LANES], the weights of the columns.
        rows: int64 [n], the rows.
        first, last: Which of them get their products with themselves and all before.
        out: float64 [n, n, LANES]; the lower triangle of rows first .. last is written.
    """
    spread = np.zeros(factors.shape)
    for a in range(first, last):
        start, stop = indptr[rows[a]], indptr[rows[a] + 1]
        for k in range(start, stop):
            j, v = indices[k], np.float64(data[k])
            for q in range(factors.shape[1]):
                spread[j, q] += v * factors[j, q]
        for b in range(a + 1):
            s0 = s1 = s2 = s3 = s4 = 0.0
            for k in range(indptr[rows[b]], indptr[rows[b] + 1]):
                j, v = indices[k], np.float64(data[k])
                s0 += v * spread[j, 0]
                s1 += v * spread[j, 1]
                s2 += v * spread[j, 2]
                s3 += v * spread[j, 3]
                s4 += v * spread[j, 4]
            o = out[a, b]
            o[0], o[1], o[2], o[3], o[4] = s0, s1, s2, s3, s4
        for k in range(start, stop):
            spread[indices[k]] = 0.0


@njit(nogil=True, cache=True)
def loss_and_gradient(  # type: ignore[no-untyped-def]
    indptr, indices, data, weights, intercept, y, share, m, first, last, losses, gradient, total
):
    """Log-loss of rows first .. last under every problem and its gradient, added to `losses`, `gradient` and `total`.

    Args:
        indptr, indices, data: X, CSR [N, K].
        weights: float64 [blocks, K, LANES]; column p * m + c is class c of problem p, columns beyond are zero.
        intercept: float64 [P * m].
        y: int64 [N], class indices; with m == 1, 1 is the class whose log-odds are computed.
        share: float64 [N, P], the weight of each row in each problem.
        m: Columns of weights of a problem: 1 for two classes, else one for each class.
        first, last: The rows.
        losses: float64 [P].
        gradient: float64 [blocks, K, LANES], by the weights.
        total: float64 [P * m], by the intercepts.
    """
    blocks, problems = weights.shape[0], share.shape[1]
    z, r = np.empty(blocks * LANES), np.zeros(blocks * LANES)
    for i in range(first, last):
        start, stop = indptr[i], indptr[i + 1]
        _gather(indptr, indices, data, weights, i, z)
        for p in range(problems):
            weight = share[i, p]
            if m == 1:
                t = z[p] + intercept[p]
                small = np.exp(-abs(t))
                losses[p] += weight * (max(t, 0.0) + np.log1p(small) - y[i] * t)
                r[p] = weight * ((1.0 if t > 0 else small) / (1.0 + small) - y[i])
                total[p] += r[p]
                continue
            base = p * m
            top = -np.inf
            for c in range(base, base + m):
                z[c] += intercept[c]
                top = max(top, z[c])
            own, norm = z[base + y[i]], 0.0
            for c in range(base, base + m):
                z[c] = np.exp(z[c] - top)
                norm += z[c]
            losses[p] += weight * (np.log(norm) + top - own)
            for c in range(base, base + m):
                r[c] = weight * (z[c] / norm - (1.0 if c == base + y[i] else 0.0))
                total[c] += r[c]
        for b in range(blocks):
            g, at = gradient[b], b * LANES
            r0, r1, r2, r3, r4 = r[at], r[at + 1], r[at + 2], r[at + 3], r[at + 4]
            for k in range(start, stop):
                j, v = indices[k], np.float64(data[k])
                g[j, 0] += v * r0
                g[j, 1] += v * r1
                g[j, 2] += v * r2
                g[j, 3] += v * r3
                g[j, 4] += v * r4


@njit(nogil=True, cache=True)
def count_columns(indices, out):  # type: ignore[no-untyped-def]
    """Add to `out` [K] how often each column occurs (numpy's bincount would copy the indices into eight bytes each)."""
    for j in indices:
        out[j] += 1


@njit(nogil=True, cache=True)
def fill_columns(indptr, indices, data, places, rows, values):  # type: ignore[no-untyped-def]
    """Write a CSR matrix column by column, rows ascending: `places` [K] say where each column begins, and move on."""
    for i in range(len(indptr) - 1):
        for k in range(indptr[i], indptr[i + 1]):
            at = places[indices[k]]
            rows[at], values[at] = i, data[k]
            places[indices[k]] = at + 1


@njit(nogil=True, cache=True)
def largest(indptr, indices, data, rows, out):  # type: ignore[no-untyped-def]
    """Raise `out` [K] to the largest value of each column over some rows of a CSR matrix."""
    for i in rows:
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            if data[k] > out[j]:
                out[j] = data[k]


@njit(nogil=True, cache=True)
def column_sums(indptr, indices, data, r, columns, out):  # type: ignore[no-untyped-def]
    """out[j] = sum over i of X[i, j] r[i] for some columns j of a CSC matrix."""
    for j in columns:
        s = 0.0
        for k in range(indptr[j], indptr[j + 1]):
            s += data[k] * r[indices[k]]
        out[j] = s


@njit(nogil=True, cache=True)
def column_products(indptr, indices, data, w, columns, out):  # type: ignore[no-untyped-def]
    """Add to out [N] some columns j of a CSC matrix times w[j]."""
    for j in columns:
        for k in range(indptr[j], indptr[j + 1]):
            out[indices[k]] += data[k] * w[j]


@njit(nogil=True, cache=True)
def l1_newton(  # type: ignore[no-untyped-def]
    indptr, indices, data, y, weight, w, b, z, penalty, columns, tolerance, total, settled, max_newton, max_sweeps
):
    """Minimise the weighted sum of log-losses + penalty . |w| over some columns and the intercept, from w, b and z.

    A quadratic model at the current point is minimised by coordinate descent, then a line search moves towards its
    minimum (Yuan, Ho and Lin, "An improved GLMNET for L1-regularized logistic regression", 2012). The intercept is
    minimised out of the model: each coordinate sees its column with the (curvature-weighted) mean taken off, which is
    what makes features that fire almost everywhere independent enough for coordinate descent.

    Args:
        indptr, indices, data: X, CSC [N, K].
        y: float64 [N], 0 or 1.
        weight: float64 [N], of each row's loss; rows of weight 0 have no influence.
        w: float64 [K]; changed in place.
        b: The intercept.
        z: float64 [N], X w + b; changed in place.
        penalty: float64 [K].
        columns: The columns that may move.
        tolerance: Largest violation of the optimality conditions, in units of the penalty, at which it stops,
        total: or at which sum of them,
        settled: or after a step that promised to lower the objective by no more than this share of it.
        max_newton, max_sweeps: At which it stops in any case; sweeps are for each Newton step.

    Returns:
        (intercept, Newton steps, whether one of these was reached).
    """
    n, m = len(z), len(columns)
    g, h, mean, d = np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    residual, curve, move = np.empty(n), np.empty(n), np.empty(n)
    value = 0.0
    for i in range(n):
        if weight[i] > 0:
            value += weight[i] * (max(z[i], 0.0) + np.log1p(np.exp(-abs(z[i]))) - y[i] * z[i])
    for newton in range(max_newton):
        g_b, h_b = 0.0, 1e-12
        for i in range(n):
            residual[i] = curve[i] = move[i] = 0.0
            if weight[i] > 0:
                small = np.exp(-abs(z[i]))
                chance = (1.0 if z[i] > 0 else small) / (1.0 + small)
                residual[i], curve[i] = weight[i] * (chance - y[i]), weight[i] * (chance * (1.0 - chance))
                g_b += residual[i]
                h_b += curve[i]
        worst = all_broken = 0.0
        for c in range(m):
            j = columns[c]
            s = s1 = s2 = 0.0
            for k in range(indptr[j], indptr[j + 1]):
                i, v = indices[k], np.float64(data[k])
                s += v * residual[i]
                s1 += v * curve[i]
                s2 += v * v * curve[i]
            g[c], mean[c], d[c] = s, s1 / h_b, 0.0
            h[c] = max(s2 - s1 * s1 / h_b, 1e-6 * s2) + 1e-12  # cancellation must not make a column look flat
            s -= mean[c] * g_b
            if w[j] > 0:
                broken = abs(s + penalty[j])
            elif w[j] < 0:
                broken = abs(s - penalty[j])
            else:
                broken = max(0.0, abs(s) - penalty[j])
            worst = max(worst, broken / penalty[j])
            all_broken += broken / penalty[j]
        if worst <= tolerance or all_broken <= total:
            return b, newton, True
        d_b = -g_b / h_b
        enough = max(0.1 * worst, 0.3 * tolerance)  # the model is solved a little better than it is true
        everything = True
        for _ in range(max_sweeps):
            most = 0.0
            for c in range(m):
                j = columns[c]
                at = w[j] + d[c]
                if at == 0.0 and not everything:
                    continue
                s = 0.0
                for k in range(indptr[j], indptr[j + 1]):
                    i = indices[k]
                    s += np.float64(data[k]) * curve[i] * move[i]
                s += g[c] + d_b * mean[c] * h_b
                if s + penalty[j] <= h[c] * at:
                    t = -(s + penalty[j]) / h[c]
                elif s - penalty[j] >= h[c] * at:
                    t = -(s - penalty[j]) / h[c]
                else:
                    t = -at
                if t == 0.0:
                    continue
                most = max(most, abs(t) * h[c] / penalty[j])
                d[c] += t
                d_b -= mean[c] * t
                for k in range(indptr[j], indptr[j + 1]):
                    move[indices[k]] += np.float64(data[k]) * t
            if most <= enough:
                if everything:
                    break
                everything = True  # columns at zero are looked at again when the others have come to rest
            else:
                everything = False
        promised = g_b * d_b  # below zero
        for c in range(m):
            j = columns[c]
            promised += g[c] * d[c] + penalty[j] * (abs(w[j] + d[c]) - abs(w[j]))
        length, new, moved = 1.0, value, False
        for _ in range(20):
            new = 0.0
            for i in range(n):
                if weight[i] > 0:
                    t = z[i] + length * (move[i] + d_b)
                    new += weight[i] * (max(t, 0.0) + np.log1p(np.exp(-abs(t))) - y[i] * t)
            change = new - value
            for c in range(m):
                j = columns[c]
                change += penalty[j] * (abs(w[j] + length * d[c]) - abs(w[j]))
            if change <= 1e-4 * length * promised:
                moved = True
                break
            length *= 0.5
        if not moved:  # no decrease left to be had in float64
            return b, newton, True
        for i in range(n):
            z[i] += length * (move[i] + d_b)
        for c in range(m):
            w[columns[c]] += length * d[c]
        b += length * d_b
        value = new
        penalised = 0.0
        for c in range(m):
            penalised += penalty[columns[c]] * abs(w[columns[c]])
        if -promised <= settled * (value + penalised):
            return b, newton + 1, True
    return b, max_newton, False
