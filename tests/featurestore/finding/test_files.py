"""Finding the files of a corpus."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from featurestore.errors import CorpusError, UsageError
from featurestore.finding.files import SourceFile, find_files
from featurestore.storage.files import filesystem, read_bytes
from tests.featurestore.conftest import Place, S3Server


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.jsonl",
        "a.jsonl",
        "c.csv.gz",
        "x/d.parquet",
        "x/deep/e.ndjson.zst",
        "x/.hidden/f.jsonl",
        ".g.jsonl",
        "_SUCCESS",
        "_temporary/h.jsonl",
        "README.md",
    ):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "corpus"


def names(*paths: object, file_format: str | None = None) -> list[str]:
    return [file.name for file in find_files([str(path) for path in paths], file_format)]


def test_a_glob_gives_its_matches_sorted_by_name_and_none_that_are_hidden(tree: Path) -> None:
    assert names(tree / "*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(tree / "[bc].*") == ["b.jsonl", "c.csv.gz"]
    assert names(tree / "?.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(tree / "*/*.parquet", tree / "a.jsonl") == ["x/d.parquet", "a.jsonl"]


def test_two_stars_reach_any_depth(tree: Path) -> None:
    assert names(tree / "**/*.ndjson.zst") == ["e.ndjson.zst"]
    assert names(tree / "x/**") == ["d.parquet", "deep/e.ndjson.zst"]
    assert names(tree / "**/?.[jp]*") == ["_temporary/h.jsonl", "a.jsonl", "b.jsonl", "x/d.parquet"]


def test_a_directory_gives_every_known_file_below_it_that_is_not_hidden(tree: Path) -> None:
    assert names(tree) == ["a.jsonl", "b.jsonl", "c.csv.gz", "x/d.parquet", "x/deep/e.ndjson.zst"]
    assert names(tree, file_format="csv") == ["c.csv.gz"]


def test_a_feature_store_below_the_corpus_is_no_part_of_it(tree: Path) -> None:
    (tree / "store" / "parts").mkdir(parents=True)
    (tree / "store" / "parts" / "part-000000.parquet").write_bytes(b"")
    before = names(tree / "**/*.parquet")
    (tree / "store" / "store.json").write_text("{}")
    assert before == ["store/parts/part-000000.parquet", "x/d.parquet"]
    assert names(tree / "**/*.parquet") == ["d.parquet"]


def test_format_and_compression_are_told_by_the_name_or_the_job(tree: Path) -> None:
    found = {file.name: (file.format, file.compression) for file in find_files([str(tree)], None)}
    assert found == {
        "a.jsonl": ("jsonl", None),
        "b.jsonl": ("jsonl", None),
        "c.csv.gz": ("csv", "gzip"),
        "x/d.parquet": ("parquet", None),
        "x/deep/e.ndjson.zst": ("jsonl", "zstd"),
    }
    (file,) = find_files([str(tree / "README.md")], "csv")
    assert file.format == "csv"


def test_the_order_of_the_paths_is_kept_and_a_file_matched_twice_is_read_once(tree: Path) -> None:
    assert names(tree / "b.jsonl", tree / "*.jsonl") == ["b.jsonl", "a.jsonl"]


def test_a_name_with_glob_characters_that_exists_is_that_file(tree: Path) -> None:
    (tree / "a[1]*.jsonl").write_bytes(b"")
    assert names(tree / "a[1]*.jsonl") == ["a[1]*.jsonl"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("{a,b}.jsonl", ["a.jsonl", "b.jsonl"]),
        ("{b,a}.jsonl", ["a.jsonl", "b.jsonl"]),
        ("{a.jsonl,x/*.parquet}", ["a.jsonl", "x/d.parquet"]),
        ("*.{jsonl,nothing}", ["a.jsonl", "b.jsonl"]),
        ("{x/{d,e}*,b.jsonl,b*}", ["b.jsonl", "x/d.parquet"]),
    ],
)
def test_braces_are_alternatives(tree: Path, pattern: str, found: list[str]) -> None:
    assert names(tree / pattern) == found


def test_a_directory_with_braces_in_its_name_does_not_stand_for_others(tree: Path) -> None:
    for folder in ("y{1,2}", "y1", "y2"):
        (tree / folder).mkdir()
        (tree / folder / ("a.csv" if "{" in folder else "a.jsonl")).write_bytes(b"")
    with pytest.raises(CorpusError, match="matches no file"):
        names(tree / "y{1,2}/*.jsonl")


def test_an_alternative_that_names_a_file_which_is_not_there_is_refused(tree: Path) -> None:
    with pytest.raises(CorpusError, match=r"corpus/c\.jsonl' does not exist, but"):
        names(tree / "{a,c}.jsonl")


@pytest.mark.parametrize("name", ["run[12]", "run{1,2}", "run?", "run*", "r**n"])
@pytest.mark.parametrize("pattern", ["{}", "{}/*.jsonl", "{}/mine.jsonl", "{}/**/*.jsonl", "*/{}/mine.jsonl"])
def test_a_directory_whose_name_could_be_a_pattern_is_that_directory(tmp_path: Path, name: str, pattern: str) -> None:
    for folder in ("run1", "run2", "run"):
        for above in ("", "deep/"):
            path = tmp_path / f"{above}{folder}" / "others.jsonl"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"")
    for above in ("", "deep/"):
        (tmp_path / f"{above}{name}").mkdir()
        (tmp_path / f"{above}{name}" / "mine.jsonl").write_bytes(b"")
    assert names(tmp_path / pattern.replace("{}", name)) == ["mine.jsonl"]


def test_a_pattern_with_a_literal_file_beside_what_it_could_mean_is_the_file(tree: Path) -> None:
    for name in ("labels [v2].jsonl", "labels v.jsonl", "labels 2.jsonl", "{a,b}.jsonl"):
        (tree / "x" / name).write_bytes(b"")
    assert names(tree / "x/labels [v2].jsonl") == ["labels [v2].jsonl"]
    assert names(tree / "*/labels [v2].jsonl") == ["labels [v2].jsonl"]
    assert names(tree / "x/{a,b}.jsonl") == names(tree / "*/{a,b}.jsonl") == ["{a,b}.jsonl"]


def test_a_file_named_like_a_pattern_hides_nothing_of_a_directory_taken_whole(tree: Path) -> None:
    (tree / "*").write_bytes(b"")
    assert names(tree) == ["a.jsonl", "b.jsonl", "c.csv.gz", "x/d.parquet", "x/deep/e.ndjson.zst"]


def test_a_directory_named_as_a_table_that_a_glob_matches_is_taken_whole(tree: Path) -> None:
    for name in ("2024.parquet/part-0.parquet", "2024.parquet/_SUCCESS", "2025.parquet/part-0.parquet"):
        (tree / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / "out" / name).write_bytes(b"")
    assert names(tree / "out/*.parquet") == ["2024.parquet/part-0.parquet", "2025.parquet/part-0.parquet"]


@pytest.mark.parametrize("scheme", ["s3", "memory", "file"])
def test_names_come_before_patterns_in_urls_too(request: pytest.FixtureRequest, tmp_path: Path, scheme: str) -> None:
    import fsspec

    written = ["run[12]/data/a.jsonl", "run1/data/b.jsonl", "run{1,2}/c.jsonl", "run2/data/d.jsonl"]
    if scheme == "s3":
        place = request.getfixturevalue("s3_place")
        root = place.uri
        for name in written:
            place.write(name, b"{}")
    elif scheme == "memory":
        root = "memory://patterns-of-test"
        for name in written:
            fsspec.filesystem("memory").pipe(f"/patterns-of-test/{name}", b"{}")
    else:
        root = f"file://{tmp_path}"
        for name in written:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"{}")
    assert names(f"{root}/run[12]/data/*.jsonl") == names(f"{root}/run[12]") == ["a.jsonl"]
    assert names(f"{root}/run[12]/data/a.jsonl") == names(f"{root}/run[[]12]/*/*.jsonl") == ["a.jsonl"]
    assert names(f"{root}/run{{1,2}}/c.jsonl") == ["c.jsonl"]
    assert names(f"{root}/run{{1,2,9}}/data/*.jsonl") == ["run1/data/b.jsonl", "run2/data/d.jsonl"]


def test_names_are_relative_to_the_directory_that_all_files_share(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus-2").mkdir()
    (tmp_path / "corpus-2" / "a.jsonl").write_bytes(b"")
    assert names(tree / "a.jsonl", tmp_path / "corpus-2/a.jsonl") == ["corpus/a.jsonl", "corpus-2/a.jsonl"]


def test_names_with_blanks_percents_and_umlauts_are_kept(tree: Path) -> None:
    (tree / "a %20 ü#.jsonl").write_bytes(b"")
    assert names(tree / "a *.jsonl") == ["a %20 ü#.jsonl"]


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        ("*.csv", r"corpus/\*\.csv' matches no file"),
        ("nowhere/*.csv", r"nowhere/\*\.csv' matches no file"),
        ("a.jsnl", "does not exist, but 'a.jsonl' does"),
        ("nowhere/a.jsonl", "does not exist; check the path"),
        ("README.md", "its name does not tell the format; give corpus.format"),
        ("_temporary/empty", "is a directory without Parquet, JSONL or CSV files"),
        ("z.parquet.gz", "a Parquet file cannot be read through gzip"),
    ],
)
def test_what_gives_no_file_is_refused_in_a_sentence(tree: Path, path: str, refusal: str) -> None:
    (tree / "_temporary" / "empty").mkdir()
    if path.startswith("z"):
        (tree / path).write_bytes(b"")
    with pytest.raises(CorpusError, match=refusal):
        names(tree / path)


def test_a_url_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="nonsense://"):
        names("nonsense://bucket/*.jsonl")


def test_a_url_keeps_its_query_for_opening_and_hides_it_in_messages() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/sources-of-test/a.jsonl", b"")
    (file,) = find_files(["memory://sources-of-test/*.jsonl"], None)
    assert (file.root, file.name) == ("memory://sources-of-test", "a.jsonl")
    assert file.uri == "memory://sources-of-test/a.jsonl"
    with pytest.raises(CorpusError) as refusal:
        names("file:///nowhere-at-all/*.jsonl?secret=hunter2")
    assert "hunter2" not in str(refusal.value)


def read(file: SourceFile) -> bytes:
    return read_bytes(filesystem(file.root)[0], file.path)


def test_one_path_of_two_endpoints_is_two_files(s3_server: S3Server, s3_place: Place, other_s3: S3Server) -> None:
    roots = []
    for server in (s3_server, other_s3):
        there = Place(s3_place.base, {}, f"endpoint_override={server.host}&scheme=http")
        there.write("a.jsonl", server.host.encode())
        roots.append(there)
    roots[1].write("b.jsonl", b"{}")
    patterns = [place.uri.replace("?", "/*.jsonl?") for place in roots]
    found = find_files(patterns, None)
    assert [file.name for file in found] == ["a.jsonl", "@2/a.jsonl", "b.jsonl"]
    assert [read(file) for file in found[:2]] == [s3_server.host.encode(), other_s3.host.encode()]
    assert [file.name for file in find_files(patterns[1:] + patterns[1:], None)] == ["a.jsonl", "b.jsonl"]
    spelled = [roots[0].uri.replace("?", "/a.jsonl?"), roots[0].uri.replace("?", "/a.jsonl?region=us-east-1&")]
    assert [file.name for file in find_files(spelled, None)] == ["a.jsonl"]


class Accounts(MemoryFileSystem):
    """Containers of several accounts, `accounts://container@account/path`, as Azure's file system reads such URLs."""

    protocol = "accounts"
    cachable = False

    def __init__(self, account: str = "", **more: Any) -> None:
        super().__init__(**more)
        self.store = _ACCOUNTS.setdefault(account, {})
        self.pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        container, _, rest = path.removeprefix("accounts://").lstrip("/").partition("/")
        return f"/{container.partition('@')[0]}/{rest}".rstrip("/")

    @staticmethod
    def _get_kwargs_from_urls(url: str) -> dict[str, str]:
        return {"account": url.removeprefix("accounts://").partition("/")[0].partition("@")[2]}


_ACCOUNTS: dict[str, dict[str, Any]] = {}


def test_one_path_of_two_accounts_is_two_files() -> None:
    import fsspec

    fsspec.register_implementation("accounts", Accounts, clobber=True)
    for account in ("eu.example", "us.example"):
        for name in ("2024/a.jsonl", "2024/b.jsonl"):
            fsspec.filesystem("accounts", account=account).pipe(f"/data/{name}", account.encode())
    patterns = [f"accounts://data@{account}/2024/*.jsonl" for account in ("eu.example", "us.example")]
    found = find_files(patterns, None)
    assert [file.name for file in found] == ["a.jsonl", "b.jsonl", "@2/a.jsonl", "@2/b.jsonl"]
    assert [read(file) for file in found] == [b"eu.example"] * 2 + [b"us.example"] * 2
    assert [file.name for file in find_files([patterns[0], patterns[0].replace("*", "a")], None)] == [
        "a.jsonl",
        "b.jsonl",
    ]
    apart = [patterns[0].replace("*", "a"), patterns[1].replace("*", "b")]
    assert names(*apart) == ["a.jsonl", "b.jsonl"]


def test_a_directory_of_images_without_tables_says_how_to_read_it(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "a.png").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"is a directory of images without tables; say corpus\.format: images"):
        find_files([str(tmp_path)], None)


def test_one_file_within_two_archives_is_two_files(tmp_path: Path) -> None:
    urls = []
    for name in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("d.csv", f"text\n{name}\n")
        urls.append(f"zip://d.csv::file://{tmp_path}/{name}.zip")
    assert len(find_files(urls, None)) == 2
