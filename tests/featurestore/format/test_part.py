"""The part file itself: encodings, size, checksums, row groups, and that the same rows give the same bytes."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from featurestore.format import part
from featurestore.format.part import encode_part, part_name, row_groups, unit_of
from featurestore.format.rows import PartRows, SparseColumn
from featurestore.format.schema import SaeColumns, StoreSchema
from tests.featurestore.stores import SCHEMA, plan_of, random_rows

D_SAE, PER_DOCUMENT = 16_384, 2_200


def metadata(data: object) -> pq.FileMetaData:
    return pq.read_metadata(io.BytesIO(data))  # type: ignore[call-overload]


def wide_rows(n: int, pools: tuple[str, ...]) -> PartRows:
    """n documents with about 2,200 features each: skewed feature frequencies, log-normal activations."""
    rng = np.random.default_rng(0)
    share = 1 / (np.arange(D_SAE) + 300) ** 0.8
    active = -np.expm1(-2600 * rng.permutation(share / share.sum()))
    picks = [np.flatnonzero(rng.random(D_SAE) < active) for _ in range(n)]
    indptr = np.concatenate([[0], np.cumsum([len(pick) for pick in picks])])
    high = rng.lognormal(2.0, 0.8, indptr[-1]).astype(np.float32)
    count = rng.geometric(0.4, indptr[-1]).astype(np.uint32)
    values = {"max": high, "sum": high * (1 + 0.7 * (count - 1)).astype(np.float32), "count": count}
    return PartRows(
        doc_id=[f"document-{i}" for i in range(n)],
        keep={},
        n_tokens=np.full(n, 500, np.uint32),
        truncated=np.zeros(n, bool),
        error=[None] * n,
        sparse={"s": SparseColumn(indptr, np.concatenate(picks).astype(np.uint32), {p: values[p] for p in pools})},
        dense={},
    )


def test_a_nonzero_of_a_wide_sae_takes_less_than_sixteen_bits() -> None:
    rows = wide_rows(60, ("max",))
    nnz = len(rows.sparse["s"].indices)
    assert 0.95 < nnz / 60 / PER_DOCUMENT < 1.05
    plan = plan_of([60], StoreSchema((), (SaeColumns("s", D_SAE, ("max",)),), ()))
    assert 14 < encode_part(plan, 0, rows).size * 8 / nnz < 16  # 15.5 measured; 13.3 is the entropy, 64 is raw


def test_columns_have_the_encodings_of_the_format() -> None:
    columns = metadata(encode_part(plan_of([20]), 0, random_rows(SCHEMA, 20))).row_group(0).to_dict()["columns"]
    encodings = {column["path_in_schema"]: column["encodings"] for column in columns}
    assert "DELTA_BINARY_PACKED" in encodings["l12_64__indices.list.element"]
    assert "BYTE_STREAM_SPLIT" in encodings["l12_64__count.list.element"]
    assert "BYTE_STREAM_SPLIT" in encodings["l12_64__top2.list.element"]
    assert "BYTE_STREAM_SPLIT" in encodings["l12_64__max.list.element"]
    assert "BYTE_STREAM_SPLIT" in encodings["resid_post_9__hidden_mean.list.element"]
    assert {column["compression"] for column in columns} == {"ZSTD"}
    assert not any(column["has_dictionary_page"] for column in columns)
    with_statistics = {column["path_in_schema"] for column in columns if column["is_stats_set"]}
    assert with_statistics == {"doc_id", "label", "score", "group", "flag", "n_tokens"}


def test_a_flipped_byte_in_a_page_is_noticed_when_reading(tmp_path: Path) -> None:
    data = bytearray(encode_part(plan_of([20]), 0, random_rows(SCHEMA, 20)))
    column = metadata(data).row_group(0).column(9)  # l12_64__max
    data[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    (tmp_path / "part").write_bytes(data)
    with (
        part.open_part(*part_fs(tmp_path / "part")) as file,
        pytest.raises(OSError, match="CRC"),
    ):
        part.read_group(file, 0)


def part_fs(path: Path) -> tuple:
    from featurestore.storage.files import filesystem

    return filesystem(path)


def test_the_footer_says_whose_part_it_is() -> None:
    plan, rows = plan_of([5, 20]), random_rows(SCHEMA, 20)
    pairs = metadata(encode_part(plan, 1, rows)).metadata
    expected = {"format_version": 1, "fingerprint": plan.fingerprint, "unit": 1, "rows": 20}
    expected |= {"errors": 2, "tokens": int(rows.n_tokens.sum())}
    assert {k.decode(): v.decode() for k, v in pairs.items() if k.startswith(b"sparsemill.")} == {
        f"sparsemill.{key}": str(value) for key, value in expected.items()
    }


def test_the_same_rows_give_the_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib\n"
        "from featurestore.format.part import encode_part\n"
        "from tests.featurestore.stores import *\n"
        "print(hashlib.sha256(encode_part(plan_of([30]), 0, random_rows(SCHEMA, 30))).hexdigest())"
    )
    root = Path(__file__).parents[3]
    there = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={"PYTHONPATH": str(root), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    here = hashlib.sha256(encode_part(plan_of([30]), 0, random_rows(SCHEMA, 30))).hexdigest()
    assert there == here


def test_row_groups_stay_below_their_bound_and_cover_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "ROW_GROUP_BYTES", 1000)
    rows = random_rows(SCHEMA, 50)
    groups = list(row_groups(SCHEMA, rows))
    assert groups[0][0] == 0 and groups[-1][1] == 50
    assert all(before[1] == after[0] for before, after in pairwise(groups))
    nnz = [rows.sparse["l12_64"].indptr[stop] - rows.sparse["l12_64"].indptr[start] for start, stop in groups]
    assert len(groups) > 5 and max(nnz) * 6 * 4 <= 1000


def test_a_row_larger_than_the_bound_is_a_row_group_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "ROW_GROUP_BYTES", 1)
    assert list(row_groups(SCHEMA, random_rows(SCHEMA, 4))) == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_a_part_name_and_its_unit_are_each_others_inverse() -> None:
    assert part_name(17) == "part-000017.parquet"
    assert [unit_of(part_name(unit)) for unit in (0, 17, 999_999, 1_000_000)] == [0, 17, 999_999, 1_000_000]


@pytest.mark.parametrize("name", ["part-17.parquet", "part-0000017.parquet", ".part-000017.parquet.a1.tmp", "x"])
def test_other_names_are_no_parts(name: str) -> None:
    assert unit_of(name) is None
