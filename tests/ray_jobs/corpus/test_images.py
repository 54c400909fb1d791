"""Corpora of images: what columns and folders of them give, row by row. Nothing is decoded here."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import CorpusError
from featurestore.tables.images import ImageFile, read_image
from ray_jobs.corpus import image_files as image_files_module
from ray_jobs.corpus.image_files import LOT, image_files, images_sha256
from ray_jobs.corpus.scan import scan
from ray_jobs.images.spool import Spool, SpooledImage
from tests.ray_jobs.corpora import documents, jsonl, spec, written
from tests.tiny_vision import png, tiny_images

PNGS = [png(image) for image in tiny_images(4)]


def images_of(corpus: Any) -> list[bytes | str | None]:
    """The encoded bytes of each document, or why its file has none."""
    return [read_image(image) if isinstance(image, ImageFile) else image for image in documents(corpus).image]


def test_what_datasets_writes_is_read_with_the_names_of_its_classes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["apple", "pear"]),
            "note": datasets.Value("string"),
        }
    )
    rows = {
        "image": [{"bytes": PNGS[0], "path": None}, {"bytes": PNGS[1], "path": "b.png"}, None],
        "label": [1, 0, 1],
        "note": ["x", "y", "z"],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "train.parquet"))
    corpus = spec(str(tmp_path / "train.parquet"), image="image", keep=("label",))
    found = documents(corpus)
    assert images_of(corpus) == [PNGS[0], PNGS[1], None]
    assert found.keep["label"] == ["pear", "apple", "pear"]
    assert found.text == ["", "", None]
    assert found.error == [None, None, "the image in 'image' is null"]


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())]
)
def test_plain_bytes_are_images_even_where_they_could_be_text(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([PNGS[0], b"a text", b"", None])
    table = pa.table({"png": values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)})
    corpus = spec(written(tmp_path / "a.parquet", table), image="png")
    assert images_of(corpus) == [PNGS[0], b"a text", None, None]
    assert documents(corpus).error[2:] == ["the image in 'png' is empty", "the image in 'png' is null"]


def test_paths_are_taken_from_the_tables_folder_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "shots").mkdir()
    for number, data in enumerate(PNGS[:2]):
        (tmp_path / "shots" / f"{number}.png").write_bytes(data)
    names = ["shots/0.png", "./shots/1.png", "shots/2.png"]
    table = pa.table({"id": ["a", "b", "c"], "file": names})
    struct = pa.table({"id": ["a", "b", "c"], "file": [{"bytes": None, "path": name} for name in names]})
    paths = [
        written(tmp_path / "t.csv", "id,file\n" + "".join(f"{i},{n}\n" for i, n in zip("abc", names, strict=True))),
        written(tmp_path / "t.jsonl", jsonl(*({"id": i, "file": n} for i, n in zip("abc", names, strict=True)))),
        written(
            tmp_path / "o.jsonl", jsonl(*({"id": i, "file": {"path": n}} for i, n in zip("abc", names, strict=True)))
        ),
        written(tmp_path / "t.parquet", table),
        written(tmp_path / "s.parquet", struct),
    ]
    digests = set()
    for path in paths:
        corpus = spec(path, image="file", id="id")
        assert images_of(corpus) == [*PNGS[:2], "the image's file '2.png' is not there"]
        digests.add(scan(corpus).files[0].images)
    assert len(digests) == 1
    (tmp_path / "shots" / "1.png").write_bytes(PNGS[3])
    assert scan(spec(paths[0], image="file", id="id")).files[0].images not in digests


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_hash_of_images_is_that_of_all_paths_and_contents_in_their_order(tmp_path: Path, kind: str) -> None:
    n = 2 * LOT + 300
    for number in range(0, n, 100):
        (tmp_path / f"{number}.png").write_bytes(PNGS[number // 100 % 4])
    names = [f"{number}.png" for number in range(n)]
    table = pa.table({"file": names})
    path = written(tmp_path / "t.csv", "file\n" + "\n".join(names) + "\n")
    if kind == "parquet":
        path = str(tmp_path / "t.parquet")
        pq.write_table(table, path, row_group_size=700)
    expected = hashlib.sha256()
    for number, name in enumerate(names):
        there = hashlib.sha256(PNGS[number // 100 % 4]).hexdigest()
        found = there if number % 100 == 0 else f"the image's file '{name}' is not there"
        expected.update(f"/{name}\0{found}\n".encode())
    assert scan(spec(path, image="file")).files[0].images == expected.hexdigest()


def test_of_a_table_of_images_no_more_than_a_lot_is_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"file": [f"{number}.png" for number in range(3 * LOT)]}), path)
    file = scan(spec(str(path), image="file")).files[0]
    there = most = 0

    def gone() -> None:
        nonlocal there
        there -= 1

    def watched(images: Iterable[ImageFile]) -> Iterator[ImageFile]:
        nonlocal there, most
        for image in images:
            there += 1
            most = max(most, there)
            weakref.finalize(image, gone)
            yield image

    assert images_sha256(watched(image_files(file, pq.ParquetFile(path), "file"))) == file.images
    assert LOT <= most <= LOT + 2


def test_an_image_that_cannot_be_read_is_named_and_not_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(image: ImageFile) -> bytes:
        raise PermissionError(13, "Permission denied", image.path)

    monkeypatch.setattr(image_files_module, "read_image", refused)  # a test that runs as root is refused nothing
    for path in (
        written(tmp_path / "t.csv", "file\n0.png\n"),
        written(tmp_path / "t.parquet", pa.table({"file": ["0.png"]})),
    ):
        with pytest.raises(CorpusError, match=r"0\.png cannot be read \(Permission denied.*check it and your access"):
            scan(spec(path, image="file"))


@pytest.mark.parametrize(
    "path", ["../secret.png", "a/../../secret.png", "/etc/passwd", "https://a.b/c.png", "..", ".", " "]
)
def test_no_path_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.png").write_bytes(PNGS[0])
    corpus = spec(written(tmp_path / "c" / "t.jsonl", jsonl({"file": path}, {"file": path})), image="file")
    found = documents(corpus)
    assert found.image == [None, None]
    assert "'file'" in str(found.error[0])
    assert path.strip(".") not in str(found.error[0]) or not path.strip(". ")


def test_a_folder_of_images_has_a_label_for_each_folder(tmp_path: Path) -> None:
    for number, place in enumerate(("cats/1.png", "dogs/2.JPG", "label=a%20b/x/3.webp", "set=1/pets/4.gif")):
        written(tmp_path / place, PNGS[number])
    written(tmp_path / "cats" / "notes.txt", "no image")
    written(tmp_path / "cats" / ".hidden.png", PNGS[0])
    corpus = spec(str(tmp_path), format="images", keep=("label",))
    found = documents(corpus)
    assert found.doc_id == ["cats/1.png", "dogs/2.JPG", "label=a%20b/x/3.webp", "set=1/pets/4.gif"]
    assert images_of(corpus) == PNGS
    assert found.keep == {"label": ["cats", "dogs", "a b", "pets"]}
    assert images_of(spec(f"{tmp_path}/*/*.png", image="any")) == [PNGS[0]]


def test_a_folder_of_images_has_no_other_columns(tmp_path: Path) -> None:
    written(tmp_path / "cats" / "1.png", PNGS[0])
    for keys, said in (
        ({"id": "key"}, "corpus.id"),
        ({"text": "caption"}, "corpus.text"),
        ({"keep": ("x",)}, "corpus.keep"),
    ):
        with pytest.raises(CorpusError, match=rf"1.png has no column '.*' \({said}\)"):
            scan(spec(str(tmp_path), image="image", **keys))


def test_tables_and_images_in_one_folder_are_not_mixed_up(tmp_path: Path) -> None:
    written(tmp_path / "1.png", PNGS[0])
    table = written(tmp_path / "metadata.csv", "file_name,caption\n1.png,a cat\n")
    with pytest.raises(CorpusError, match="holds tables and images"):
        scan(spec(str(tmp_path), image="file_name"))
    assert images_of(spec(str(tmp_path), format="images")) == [PNGS[0]]
    found = documents(spec(table, image="file_name", text="caption"))
    assert found.text == ["a cat"]


def test_a_corpus_of_texts_does_not_see_images(tmp_path: Path) -> None:
    written(tmp_path / "1.png", PNGS[0])
    written(tmp_path / "a.jsonl", jsonl({"text": "x"}))
    assert documents(spec(str(tmp_path))).text == ["x"]


def test_a_struct_with_two_fields_of_one_name_is_read(tmp_path: Path) -> None:
    fields = [pa.field("bytes", pa.binary()), pa.field("path", pa.string()), pa.field("path", pa.string())]
    arrays = [pa.array([PNGS[0]]), pa.array(["a"]), pa.array(["b"])]
    table = pa.table({"image": pa.StructArray.from_arrays(arrays, fields=fields)})
    assert images_of(spec(written(tmp_path / "a.parquet", table), image="image")) == [PNGS[0]]


@pytest.mark.parametrize("table", [{"image": [1, 2]}, {"image": [[b"a"], []]}, {"image": [{"x": 1}] * 2}])
def test_a_column_that_cannot_hold_images_is_refused(tmp_path: Path, table: dict[str, Any]) -> None:
    with pytest.raises(CorpusError, match=r"'image' \(corpus.image\) holds .*, not images"):
        scan(spec(written(tmp_path / "a.parquet", pa.table(table)), image="image"))


def test_more_bytes_of_images_than_memory_is_for_are_kept_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [bytes([n]) * (n + 1) for n in range(40)]
    table = pa.table({"image": pa.array(many, pa.binary())})
    corpus = spec(written(tmp_path / "a.parquet", table), image="image")
    monkeypatch.setattr(Spool.__init__, "__defaults__", (100,))
    found = documents(corpus).image
    assert sum(len(image) for image in found if isinstance(image, bytes)) <= 100
    assert [image.read() if isinstance(image, SpooledImage) else image for image in found] == many


def test_rows_of_json_without_an_image_have_their_error_and_no_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(PNGS[0])
    lines = [json.dumps({"file": "1.png"}), '{"file": 7}', '{"file": null}', "{}", "{", '{"file": ["1.png"]}']
    found = documents(spec(written(tmp_path / "a.jsonl", "\n".join(lines)), image="file"))
    assert found.error[:4] == [
        None,
        "the image in 'file' is a number",
        "the image in 'file' is null",
        "the row has no image 'file'",
    ]
    assert str(found.error[4]).startswith("the line is not JSON")
    assert found.error[5] == "the image in 'file' is a list"
    with pytest.raises(CorpusError, match="has no column 'img'"):
        scan(spec(str(tmp_path / "a.jsonl"), image="img"))
