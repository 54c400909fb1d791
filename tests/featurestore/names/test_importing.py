"""Names from files: Neuronpedia's exports and tables of one's own; what is of another SAE is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import NamesError, TableError
from featurestore.names.importing import contradiction, read_names
from featurestore.names.table import NameRow
from featurestore.names.which_sae import NamedSae

SAE = NamedSae("a" * 64, 100, "SAE 'l12_16k' of store/", "google/gemma-2-2b", 12, "gemma-2-2b/12-gemmascope-res-16k")


def export_line(index: Any, description: Any, **changes: Any) -> str:
    """A line of an export, with the keys that it has."""
    line = {
        "modelId": "gemma-2-2b",
        "layer": "12-gemmascope-res-16k",
        "index": index,
        "id": "clx",
        "description": description,
        "explanationModelName": "gpt-4o-mini",
        "typeName": "oai_token-act-pair",
        "embedding": [0.25, -1.5],
        "umap_cluster": None,
    }
    return json.dumps({**line, **changes})


def write(path: Path, lines: Iterable[str]) -> str:
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


def test_an_export_is_read_gzipped_or_plain_in_any_order(tmp_path: Path) -> None:
    batches = [
        write(tmp_path / "batch-3.jsonl.gz", [export_line("99", " dogs"), export_line("0", "Größe <b>\u202e\n")]),
        write(tmp_path / "batch-11.jsonl", [export_line(7, "cats", explanationModelName="o3")]),
    ]
    read = read_names(batches, SAE, licence="CC0")
    name = {"source": "imported", "explainer": "gpt-4o-mini", "method": "oai_token-act-pair", "licence": "CC0"}
    assert read.rows == [
        NameRow(99, " dogs", origin=batches[0], **name),
        NameRow(0, "Größe <b>\u202e\n", origin=batches[0], **name),
        NameRow(7, "cats", origin=batches[1], **{**name, "explainer": "o3"}),
    ]
    assert read.notes == ()


def test_what_opens_a_url_is_not_kept_with_the_names(tmp_path: Path) -> None:
    path = write(tmp_path / "batch.jsonl", [export_line(7, "cats")])
    read = read_names([path], SAE, origins=["s3://KEY:topsecret@bucket/n.csv?X-Amz-Signature=topsecret"])
    assert read.rows[0].origin is not None
    assert "bucket/n.csv" in read.rows[0].origin and "topsecret" not in read.rows[0].origin


@pytest.mark.parametrize("columns", [("feature", "name"), ("index", "description")])
def test_a_table_of_ones_own_is_read_from_every_format(tmp_path: Path, columns: tuple[str, str]) -> None:
    feature, text = columns
    own: Mapping[str, list[Any]] = {feature: [3, 14], text: ["dogs", "cats, too"], "licence": ["CC BY", None]}
    (tmp_path / "a.csv").write_text(f'{feature},{text},licence\n003,dogs,CC BY\n14,"cats, too",\n', encoding="utf-16")
    write(tmp_path / "b.jsonl", [json.dumps({key: values[at] for key, values in own.items()}) for at in (0, 1)])
    pq.write_table(pa.table(own), tmp_path / "c.parquet")
    for name in ("a.csv", "b.jsonl", "c.parquet"):
        rows = read_names([str(tmp_path / name)], SAE, explainer="me").rows
        assert [(row.feature, row.text, row.explainer, row.licence) for row in rows] == [
            (3, "dogs", "me", "CC BY"),
            (14, "cats, too", "me", None),
        ]


def test_the_last_of_several_names_by_one_explainer_counts_and_is_said(tmp_path: Path) -> None:
    lines = [export_line(1, "a"), export_line(1, "b"), export_line(1, "c", typeName="other"), export_line(2, "d")]
    again = write(tmp_path / "again.jsonl", [export_line(2, "e")])
    read = read_names([write(tmp_path / "n.jsonl", lines), again], SAE)
    assert [(row.feature, row.text) for row in read.rows] == [(1, "b"), (1, "c"), (2, "e")]
    assert read.notes == ("2 names of features that the same explainer names again further on; the last one counts",)


def test_rows_without_a_usable_name_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = [
        export_line(1, "good"),
        export_line(2, None),
        export_line(3, "  "),
        export_line(4, 5),
        export_line(None, "x"),
        export_line("1.5", "x"),
        export_line(-3, "x"),
        export_line("٣", "x"),
        export_line(True, "x"),
        export_line(5, "\ud800"),
        export_line(6, "x" * 10_000_000),
        export_line(float("nan"), "x"),
        '{"index": 7, "descr',
    ]
    read = read_names([write(tmp_path / "n.jsonl", lines)], SAE)
    assert [row.text for row in read.rows] == ["good"]
    assert len(read.notes) == 2
    assert "n.jsonl: 1 row cannot be read (n.jsonl row 12, the line is not JSON" in read.notes[0]
    assert read.notes[1].endswith("11 rows without a name that can be used (row 1, the text in 'description' is null)")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([export_line(1, ""), export_line(2, None)], "holds no name that can be used (row 0, the name is empty)"),
        (
            [export_line(1, "a"), export_line(100, "b")],
            "row 1 names feature 100, and SAE 'l12_16k' of store/ has features 0 to 99",
        ),
        (
            [export_line(1, "a", layer="12-gemmascope-att-16k")],
            "these are names of gemma-2-2b/12-gemmascope-att-16k, and",
        ),
        ([export_line(1, "a", modelId="gpt2-small")], "is gemma-2-2b/12-gemmascope-res-16k; import them for"),
        ([export_line(1, "a"), export_line(2, "b", layer="13-x")], "holds names of 2 SAEs"),
        ([json.dumps({"index": 1, "label": "a"})], "has no column 'name'"),
        ([json.dumps({"modelId": "m", "layer": "1-x", "description": "a"})], "has no column 'index'"),
    ],
)
def test_a_file_of_another_sae_or_without_names_is_refused(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(NamesError) as refused:
        read_names([write(tmp_path / "n.jsonl", lines)], SAE)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_an_export_that_was_cut_off_is_one_sentence(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "b.jsonl.gz", [export_line(n, f"name {n * 7919}") for n in range(100)]))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(TableError, match="is no whole gzip file"):
        read_names([str(path)], SAE)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("index,name\n1,dogs\n".encode("utf-16")[2:], ""),
        (b"index,name\n1,caf\xe9\n", ""),
        (b"", "has no column"),
        (b"\0" * 100, ""),
    ],
)
def test_odd_bytes_in_csv_are_one_sentence(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "n.csv"
    path.write_bytes(data)
    with pytest.raises((NamesError, TableError)) as refused:
        read_names([str(path)], SAE)
    assert says in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("known", "neuronpedia_id", "instead"),
    [
        ({"neuronpedia": "m/3-res"}, "M/3-res", None),
        ({"neuronpedia": "m/3-res", "layer": 3}, "m/3-att", "m/3-res"),
        ({"layer": 3}, "m/3-att", None),
        ({"layer": 3}, "m/4-att", "of layer 3"),
        ({"layer": 3}, "m/blocks.4", None),
        ({"model": "google/gemma-2-2b"}, "gemma-2-2b/0-x", None),
        ({"model": "openai-community/gpt2"}, "gpt2-small/0-x", None),
        ({"model": "google/gemma-2-9b"}, "gemma-2-2b/0-x", "of google/gemma-2-9b"),
        ({}, "gemma-2-2b/0-x", None),
    ],
)
def test_only_what_both_sides_know_can_contradict(
    known: dict[str, Any], neuronpedia_id: str, instead: str | None
) -> None:
    assert contradiction(NamedSae("a" * 64, 8, "it", **known), neuronpedia_id) == instead
