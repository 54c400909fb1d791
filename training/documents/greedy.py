"""The compiled loop of `training.documents.placing`: it puts sampling units, one after the other, where each fits best.

It is a module of its own, so that numba is loaded where units are placed and nowhere else.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def place(indptr, indices, data, order, wanted, need):  # type: ignore[no-untyped-def]
    """One greedy division, int64 [U] (see `training.documents.placing.divide`).

    Args:
        indptr, indices, data: CSR int64 [U, C], documents of each class in each unit.
        order: int64 [U], in which they are placed.
        wanted: float64 [B, C], documents that each part is to have.
        need: int64 [B, C], units that it must have where that can be.
    """
    n_parts, n_codes = wanted.shape
    documents, total, room = np.zeros(wanted.shape), np.zeros(n_parts), wanted.sum(axis=1)
    lacking, left = need.copy(), np.zeros(n_codes, np.int64)  # units that a part still needs, units still to come
    short = np.zeros(n_codes, np.int64)  # units that all parts together still need
    for c in indices:
        left[c] += 1
    for b in range(n_parts):
        for c in range(n_codes):
            lacking[b, c] = max(lacking[b, c], 0)
            short[c] += lacking[b, c]
    part = np.empty(len(order), np.int64)
    for u in order:
        best, most, least = -1, -1, 0.0
        for b in range(n_parts):
            helps, cost = 0, 0.0
            for k in range(indptr[u], indptr[u + 1]):
                c, more = indices[k], data[k]
                helps += int(lacking[b, c] > 0 and left[c] <= short[c])
                # By how much the squared distance to what is wanted, in units of it, would grow.
                cost += more * (2.0 * (documents[b, c] - wanted[b, c]) + more) / wanted[b, c]
            alike = best >= 0 and helps == most and abs(cost - least) < 1e-9
            if (
                helps > most
                or (helps == most and cost < least and not alike)
                or (alike and total[b] / room[b] < total[best] / room[best])
            ):
                best, most, least = b, helps, cost
        part[u] = best
        for k in range(indptr[u], indptr[u + 1]):
            c = indices[k]
            documents[best, c] += data[k]
            total[best] += data[k]
            left[c] -= 1
            if lacking[best, c] > 0:
                lacking[best, c] -= 1
                short[c] -= 1
    return part
