"""The compiled loops against a few lines of numpy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array
from scipy.special import log_softmax

from training.solvers.kernels import (
    LANES,
    column_products,
    column_sums,
    csr_parts,
    largest,
    loss_and_gradient,
    products,
    row_products,
)
from training.solvers.l1_path import by_column


def matrix(dtype: type, n: int = 23, k: int = 11) -> csr_matrix:
    """Rows of any length, some empty, values of both signs."""
    return csr_matrix(
        random_array((n, k), density=0.3, rng=np.random.default_rng(3), data_sampler=_normal), dtype=dtype
    )


def _normal(size: int) -> np.ndarray:
    return np.random.default_rng(4).standard_normal(size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_those_of_numpy(dtype: type) -> None:
    X, rng = matrix(dtype), np.random.default_rng(0)
    lanes = rng.standard_normal((2, X.shape[1], LANES))
    out = np.full((X.shape[0], 2 * LANES), np.nan)
    products(*csr_parts(X), lanes, 0, 9, out)
    products(*csr_parts(X), lanes, 9, X.shape[0], out)
    expected = X.toarray().astype(np.float64) @ np.concatenate(list(lanes), axis=1)
    assert out == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_rows_with_rows_are_those_of_numpy(dtype: type) -> None:
    X, factors, rows = matrix(dtype), np.random.default_rng(0).random((11, LANES)), np.array([2, 3, 11, 22])
    out = np.zeros((4, 4, LANES))
    for first, last in ((0, 1), (1, 4)):
        row_products(*csr_parts(X), factors, rows, first, last, out)
    dense = X.toarray().astype(np.float64)[rows]
    for q in range(LANES):
        assert out[:, :, q] == pytest.approx(np.tril((dense * factors[:, q]) @ dense.T), abs=1e-12)


@pytest.mark.parametrize("m", [1, 3])
def test_loss_and_gradient_are_those_of_numpy(m: int) -> None:
    X, rng, P = matrix(np.float32), np.random.default_rng(0), 4
    n, k = X.shape
    y, share = rng.integers(0, max(m, 2), n), rng.random((n, P))
    flat, intercept = rng.standard_normal((k, P * m)), rng.standard_normal(P * m)
    groups = -(-P * m // LANES)
    padded = np.zeros((k, groups * LANES))
    padded[:, : P * m] = flat
    lanes = np.ascontiguousarray(padded.reshape(k, groups, LANES).transpose(1, 0, 2))
    losses, gradient, total = np.zeros(P), np.zeros_like(lanes), np.zeros(P * m)
    for first, last in ((0, 10), (10, n)):
        loss_and_gradient(*csr_parts(X), lanes, intercept, y, share, m, first, last, losses, gradient, total)

    dense = X.toarray().astype(np.float64)
    z = (dense @ flat + intercept).reshape(n, P, m)
    if m == 1:
        z = np.concatenate([np.zeros_like(z), z], axis=2)
    log_p = log_softmax(z, axis=2)
    target = np.eye(z.shape[2])[y][:, None, :]
    residual = ((np.exp(log_p) - target) * share[:, :, None])[:, :, -m:].reshape(n, P * m)
    assert losses == pytest.approx(-((log_p * target).sum(axis=2) * share).sum(axis=0), abs=1e-12)
    assert total == pytest.approx(residual.sum(axis=0), abs=1e-12)
    found = np.concatenate(list(gradient), axis=1)[:, : P * m]
    assert found == pytest.approx(dense.T @ residual, abs=1e-12)


@pytest.mark.parametrize("n", [23, (1 << 16) + 1])
def test_a_matrix_by_columns_is_that_of_scipy(n: int) -> None:
    X = matrix(np.float32, n)
    found, expected = by_column(X), X.tocsc()
    assert found.rows.dtype == (np.uint16 if n < 1 << 16 else np.uint32)
    assert (found.indptr == expected.indptr).all()
    assert (found.rows == expected.indices).all()
    assert (found.data == expected.data).all()
    w, out = np.random.default_rng(0).standard_normal(11), np.ones(n)
    column_products(*found.parts, w, np.array([0, 2, 10], dtype=np.uint32), out)
    assert out == pytest.approx(1.0 + X.toarray()[:, [0, 2, 10]].astype(np.float64) @ w[[0, 2, 10]], abs=1e-12)
    assert by_column(X.toarray()).data.tolist() == found.data.tolist()


def test_column_sums_and_largest_values_are_those_of_numpy() -> None:
    X, r = matrix(np.float32), np.random.default_rng(0).standard_normal(23)
    out, high = np.full(X.shape[1], -7.0), np.zeros(X.shape[1])
    column_sums(*csr_parts(X.tocsc()), r, np.array([0, 2, 10], dtype=np.uint32), out)
    expected = X.toarray().astype(np.float64).T @ r
    assert out[[0, 2, 10]] == pytest.approx(expected[[0, 2, 10]], abs=1e-12)
    assert (out[[1, 3, 4, 5, 6, 7, 8, 9]] == -7.0).all()
    rows = np.array([1, 5, 7])
    largest(*csr_parts(X), rows, high)
    assert high == pytest.approx(np.maximum(X.toarray()[rows].max(axis=0), 0.0))
