"""What the pages show of the records: each table by its name, as Markdown.

A function takes the newest record of every measurement and returns lines; `benchmarks.publish` puts them between a
page's markers. Rounding and ratios are made here, so that no figure is typed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks import arithmetic

Records = Mapping[str, Any]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]]).replace("|  |", "| |")


def three(records: Records) -> str:
    """README's."""
    ways, batches = _gpu_ways(records["gpu"]), records["big-store"]["steps"]["batches"]
    rate = ways["engine"]["tokens_per_second"]
    grid = _whole_grid(records["study-1000"])
    rows = [
        [
            "from texts to rows, Gemma 2 2B with 16k features, one H200",
            f"{rate:,.0f} tokens/s, {rate / ways['(i) naive']['tokens_per_second']:.0f} x the naive way",
        ],
        [
            f"reading {_size_of(batches)}, 2 cores",
            f"{batches['seconds']:.1f} s in {_mb(batches['peak_bytes'])}",
        ],
        [
            "a study's grid of 18 cells, beside scikit-learn's `GridSearchCV`",
            f"{grid['peer'] / grid['ours']:.0f} x as fast",
        ],
    ]
    return _table(["what", "measured"], rows)


def numbers_cpu(records: Records) -> str:
    """What 2 cores do."""
    whole, slow = records["extract"]["whole"], records["extract"]["head_to_head"]
    ours = whole["ours"]["tokens_per_second"]
    documents = records["extract"]["corpus"]["documents"]
    columns, formats = records["store"]["columns"], records["store"]["formats"]["ours"]
    batches, shown = records["big-store"]["steps"]["batches"], records["big-store"]["show_feature_seconds"]
    study, grid = records["study"]["ours"], _whole_grid(records["study-1000"])
    grid_x = f"{grid['peer'] / grid['ours']:.0f}"
    layers = records["scaling-layers"]["steps"]["layers 4, 9, 14, 6 SAEs"]
    all_features = _million(records)["all features, L2"]
    rows = [
        [
            "extraction, Gemma 3 270M layer 9, 16k SAE, Reuters R8, 2 cores",
            f"{ours:,.0f} tokens/s: {ours / whole['d']['tokens_per_second']:.2f} x careful use of transformers, "
            f"{_percent(whole['ours']['share_of_limit'], 0)} of the machine's limit; "
            f"{ours / slow['a']['tokens_per_second']:.0f} x the reference code and "
            f"{ours / slow['b']['tokens_per_second']:.0f} x sae-lens as documented, which ran on {documents['some']} "
            f"of the {documents['all']:,} documents ([how to read that](performance.md))",
            "`make bench-extract`",
        ],
        [
            "a feature on disk, 16k SAE on news articles: index and `max` / each further pooling / binarised",
            f"{formats['bits']:.1f} / {columns['sum']:.1f} and less / {columns['indices']:.1f} bits",
            "`make bench-store`",
        ],
        [
            "writing features, checked and hashed / reading them to CSR, one core",
            f"{formats['write']:.0f} / {formats['read']:.0f} million non-zeros a second",
            "`make bench-store`",
        ],
        [
            f"`batches()` over {_size_of(batches)}",
            f"{batches['seconds']:.1f} s in {_mb(batches['peak_bytes'])}",
            "`make bench-big-store`",
        ],
        [
            "`show --feature` on 1.5 million documents, once indexed",
            f"{min(shown):.2f} to {max(shown):.2f} s",
            "`make bench-big-store`",
        ],
        [
            "a study's grid: 18 cells, 10 values of C, 5 folds, 16,384 features",
            f"{sum(study['seconds'].values()):.0f} s on {study['documents']:,} documents; "
            f"on 1,000 of them {grid_x} x as fast as `GridSearchCV` ([what both select](performance.md#studies))",
            "`python -m benchmarks.study --store bench-stores/benchmark`",
        ],
        [
            "a study of a million documents (200 million non-zeros)",
            f"{all_features['s']} s in {_number(all_features['peak MB']) / 1000:.1f} GB",
            "`python -m benchmarks.study_scale million`",
        ],
        [
            "three layers with two SAEs each in one job, beside the deepest alone with one",
            f"{layers['time_ratio']:.2f} x the time",
            "`python -m benchmarks.scaling layers`",
        ],
    ]
    return _table(["what", "figure", "command"], rows)


def numbers_gpu(records: Records) -> str:
    """What one GPU does."""
    two, nine = _gpu_ways(records["gpu"]), _gpu_ways(records["gpu-9b"])
    three_workers, one = (
        records[name]["ways"]["job"]["tokens_per_second"] for name in ("gpu-job-3-workers", "gpu-job")
    )
    rate, nine_rate = (ways["engine"]["tokens_per_second"] for ways in (two, nine))
    share, nine_share = (_percent(ways["engine"]["operations_share"], 0) for ways in (two, nine))
    faster = f"{rate / two['(i) naive']['tokens_per_second']:.0f} x the naive way"
    rows = [
        [
            "Gemma 2 2B, layer 12, 16k SAE",
            f"{rate:,.0f} tokens/s: {faster}, {share} of the GPU's limit",
            "`python -m benchmarks.gpu --models 2b --ways i,iii,engine --seconds 4`",
        ],
        [
            "Gemma 2 9B, layer 20, 16k SAE",
            f"{nine_rate:,.0f} tokens/s: {nine_share} of the limit",
            "`python -m benchmarks.gpu --models 9b --widths 16384 --ways iii,engine --seconds 3`",
        ],
        [
            "a whole job through Ray, 2B, three workers that share the GPU / one",
            f"{three_workers:,.0f} / {one:,.0f} tokens/s",
            "`python -m benchmarks.gpu_job --workers 3 --documents 30000` / `python -m benchmarks.gpu_job`",
        ],
    ]
    return _table(["what", "figure", "command"], rows)


def gpu(records: Records) -> str:
    """Ways from texts to rows on a GPU."""
    two, nine = _gpu_ways(records["gpu"]), _gpu_ways(records["gpu-9b"])
    named = [
        ("2B, layer 12: whole model padded, dense SAE in float32", two["(i) naive"]),
        ("2B: the model ends at the hook, SAE in bfloat16", two["(iii) + SAE bf16"]),
        ("**2B: the engine**", two["engine"]),
        ("9B, layer 20: the model ends at the hook, SAE in bfloat16", nine["(iii) + SAE bf16"]),
        ("**9B: the engine**", nine["engine"]),
    ]
    rows = []
    for name, way in named:
        rate, share = f"{way['tokens_per_second']:,.0f}", _percent(way["operations_share"], 1)
        if name.startswith("*"):
            rate, share = f"**{rate}**", f"**{share}**"
        fed, idle = f"{way['fed_per_content']:.2f}", _percent(way["idle_share"], 1)
        rows.append([name, rate, share, fed, idle, f"{way['peak_bytes'] / 1e9:.1f} GB"])
    header = ["", "content tokens/s", "of the limit", "positions fed for each", "GPU without a kernel", "memory"]
    return _table(header, rows)


def gpu_job(records: Records) -> str:
    """A whole job through Ray beside the engine in a loop."""
    rows = []
    for name, record in (("one worker on the GPU", "gpu-job"), ("three workers that share it", "gpu-job-3-workers")):
        ways = records[record]["ways"]
        more = ways["loop"]["tokens_per_second"] / ways["job"]["tokens_per_second"] - 1
        beside = f"so it takes **{_percent(more, 0)} more time**" if more > 0.02 else "the same"
        rows.append(
            [name, f"{ways['job']['tokens_per_second']:,.0f}", f"{ways['loop']['tokens_per_second']:,.0f}, {beside}"]
        )
    return _table(["Gemma 2 2B, 16k SAE", "tokens/s", "beside the engine in a loop"], rows)


def extraction(records: Records) -> str:
    """Extraction beside what people do today."""
    record = records["extract"]
    head, whole, documents = record["head_to_head"], record["whole"], record["corpus"]["documents"]
    ours = whole["ours"]
    peers = [
        ("a", "the reference code", head["a"], "some"),
        ("b", "sae-lens as documented", head["b"], "some"),
        ("c", head["c"]["peer"], head["c"], "some"),
        ("d", "a careful user", whole["d"], "all"),
    ]
    rows = []
    for key, name, peer, which in peers:
        times = ours["tokens_per_second"] / peer["tokens_per_second"]
        faster = f"{times:.2f} x" if times < 10 else f"{times:.0f} x"
        rate, share = f"{peer['tokens_per_second']:,.0f}", _percent(peer["share_of_limit"], 1)
        rows.append([f"{key}, {name}", f"{documents[which]:,}", rate, f"{peer['fed_per_content']:.2f}", share, faster])
    rate = f"{ours['tokens_per_second']:,.0f} ({ours['slowest']:,.0f} to {ours['fastest']:,.0f})"
    best = _percent(ours["fastest"] / record["limit"]["tokens_per_second"]["all"], 1)
    share = f"{_percent(ours['share_of_limit'], 1)} (best run {best})"
    rows.append(["Sparsemill", f"{documents['all']:,}", rate, f"{ours['fed_per_content']:.2f}", share, ""])
    return _table(
        [
            "",
            "documents",
            "content tokens/s",
            "positions fed for each",
            "of the machine's limit",
            "ours, whole corpus, is faster",
        ],
        rows,
    )


def widths(records: Records) -> str:
    """Wide SAEs."""
    rows = [
        [
            name.removesuffix(" features"),
            f"{step['tokens_per_second']:,.0f}",
            f"{step['time_ratio']:.2f} x",
            f"{step['operations_ratio']:.2f} x",
            _mb(step["worker_peak_rss"]),
            _mb(step["bundle_bytes"]),
        ]
        for name, step in records["scaling-width"]["steps"].items()
    ]
    return _table(["features", "tokens/s", "time", "operations", "worker's peak memory", "bundle"], rows)


def store(records: Records) -> str:
    """The store, with what was asked for."""
    columns, ours = records["store"]["columns"], records["store"]["formats"]["ours"]
    steps, shown = records["big-store"]["steps"], records["big-store"]["show_feature_seconds"]
    batches, tenth, statistics = (
        steps["batches"],
        steps["matrix_5000_features_of_a_tenth"],
        steps["statistics_with_classes"],
    )
    small, big = "`make bench-store`", "`make bench-big-store`"
    rows = [
        ["bits a non-zero, index and `max` (Reuters R8, 16,384 features)", "15.5", f"{ours['bits']:.1f}", small],
        ["each further pooling: `sum`, `count`", "11", f"{columns['sum']:.1f}, {columns['count']:.1f}", small],
        ["binarised (the indices alone)", "5", f"{columns['indices']:.1f}", small],
        [
            "writing on one core, checks, hash and fsync included",
            "40 million non-zeros/s",
            f"{ours['write']:.1f}",
            small,
        ],
        ["reading to CSR on one core", "80 million non-zeros/s", f"{ours['read']:.0f}", small],
        [
            f"opening 1.5 million documents of 1,500 non-zeros ({batches['nnz'] / 1e9:.2f} billion, "
            f"{records['big-store']['store']['bytes'] / 1e9:.1f} GB)",
            "1 s",
            f"{batches['open_seconds']:.3f} s",
            big,
        ],
        [
            "`batches()` over all of it, peak memory",
            "1.5 GiB",
            f"{_mb(batches['peak_bytes'])}, {batches['nnz'] / batches['seconds'] / 1e6:.0f} million non-zeros/s",
            big,
        ],
        ["`matrix()`, 5,000 features of every tenth document, peak memory", "2 GiB", _mb(tenth["peak_bytes"]), big],
        [
            "`statistics()` with classes, peak memory",
            "one pass",
            f"{statistics['seconds']:.0f} s, {_mb(statistics['peak_bytes'])}",
            big,
        ],
        ["`show --feature`, once indexed, a process of its own", "1 s", f"{min(shown):.2f} to {max(shown):.2f} s", big],
    ]
    return _table(["what", "asked for", "measured", "command"], rows)


def formats(records: Records) -> str:
    """The store beside other formats."""
    names = {
        "ours": "ours, with ids and tokens",
        "ours, exact float32": "ours, exact float32",
        "zarr CSR": "zarr CSR",
        "scipy npz": "scipy npz, compressed",
        "Parquet, pyarrow defaults": "Parquet, pyarrow's defaults",
        "h5ad, gzip": "h5ad, gzip",
        "raw npy": "npy arrays of uint32 and float32",
        "svmlight": "svmlight",
    }
    found = records["store"]["formats"]
    rows = [
        [said, *(f"{found[name][key]:,.{digits}f}" for key, digits in (("bits", 2), ("write", 1), ("read", 1)))]
        for name, said in names.items()
    ]
    return _table(["format", "bits", "write", "read"], rows)


def studies(records: Records) -> str:
    """A study's grid beside GridSearchCV."""
    small = records["study-1000"]
    named = [
        ("a study, all 18 cells", records["study"]["ours"]),
        ("a study, all 18 cells (`--documents 1000 --sides ours peer optimum`)", small["ours"]),
        ("`GridSearchCV`, the same", small["peer"]),
        ("`GridSearchCV` with solvers that run until they are there", small["optimum"]),
    ]
    rows = [
        [
            name,
            f"{side['documents']:,}",
            *(f"{side['seconds'][key]:.1f} s" for key in ("L2", "L1", "load")),
            f"{sum(side['seconds'].values()):,.1f} s",
        ]
        for name, side in named
    ]
    return _table(["", "documents", "L2", "L1", "reading", "all"], rows)


def growth(records: Records) -> str:
    """Time of one cell against non-zeros."""
    rows = [
        [
            f"{_number(nnz) / 1e6:.1f} million",
            f"{l2} s ({l2_each} ns{' each' if first else ''})",
            f"{l1} s ({l1_each} ns)",
        ]
        for first, (nnz, l2, l2_each, l1, l1_each) in _first(records["study-growth"]["rows"][1:])
    ]
    return _table(["non-zeros", "L2", "L1"], rows)


def few_documents(records: Records) -> str:
    """L2 of few documents and many columns, in the columns and in the span of the documents."""
    rows = [
        [f"{name}, {width} columns", f"{search} s", f"{in_span} s", f"{fit} s", f"{fit_in_span} s"]
        for name, width, search, in_span, fit, fit_in_span, *_ in records["study-few"]["rows"][1:]
    ]
    return _table(["", "search in the columns", "in the span", "final model in the columns", "in the span"], rows)


def near_duplicates(records: Records) -> str:
    """The search for near-duplicates among a million texts."""
    kinds = records["near-duplicates-1000000"]["kinds"]
    named = {
        "without": "40 words each",
        "footer": "the same number of words and a footer of 60 that all share",
        "same": "one auto-reply, a million times",
    }
    rows = [
        [said, f"{kinds[kind]['cpu_seconds']:.0f} s", f"{kinds[kind]['bytes_peak'] / 1e9:.1f} GB"]
        for kind, said in named.items()
    ]
    return _table(["a million texts", "time", "memory"], rows)


def feature_names(records: Records) -> str:
    """How much keywords tell of where features fire."""
    named = {
        "feature-names-demo": "the demo's prompts, five languages",
        "feature-names-hatecheck-en": "HateCheck English, halves by template",
    }

    def share(value: Sequence[float]) -> str:
        middle, low, high = (f"{number:.3f}".removeprefix("0") for number in value)
        return f"{middle} [{low}, {high}]"

    rows = []
    for name, said in named.items():
        record = records[name]
        pairs = [share(record[key]["pairs"]) for key in ("own", "shuffled", "difference")]
        rows.append([said, f"{record['documents']:,}", f"{record['named']} of {record['features']}", *pairs])
    return _table(["corpus", "documents", "with keywords", "of pairs, own name", "other names", "difference"], rows)


def registry(records: Records) -> str:
    """SAEs of sae-lens' registry by site: how many there are, and how many the loader takes."""
    found = records["registry"]
    rows = [
        [f"`{site}`" if site != "None" else "what only a file says", f"{n['saes']:,}", f"{n['accepted']:,}"]
        for site, n in found["sites"].items()
    ]
    share = _percent(found["accepted"] / found["saes"], 2)
    rows.append([f"all, of {found['releases']} releases", f"{found['saes']:,}", f"{found['accepted']:,} ({share})"])
    said = [f"Of those that can be run {found['pickled']:,} need `allow_pickle: true`"]
    said += [f"of {found['assumed']:,} the architecture stands in a file, and is taken here for one that is supported"]
    said += [f"{n:,} are refused: {reason.split('; ')[0]}" for reason, n in found["refused"].items()]
    return _table(["site", "SAEs", "can be run"], rows) + "\n\n" + ";\n".join(said) + "."


def memory(records: Records) -> str:
    """Memory of a CPU worker: what `plan` says, and what one takes."""
    rows = [
        [name, _mb(row["estimated"]), _mb(row["measured"]), f"{row['estimated'] / row['measured']:.2f}"]
        for name, row in records["memory"]["bundles"].items()
    ]
    return _table(["bundle", "said", "taken", "said / taken"], rows)


FIGURES: Mapping[str, Callable[[Records], str]] = {
    "three": three,
    "numbers-cpu": numbers_cpu,
    "numbers-gpu": numbers_gpu,
    "costs": lambda _: arithmetic.table(keys=128, teraflops=790, gigabytes=3350, batch_tokens=16_384),
    "gpu": gpu,
    "gpu-job": gpu_job,
    "extraction": extraction,
    "widths": widths,
    "store": store,
    "formats": formats,
    "studies": studies,
    "growth": growth,
    "few-documents": few_documents,
    "near-duplicates": near_duplicates,
    "feature-names": feature_names,
    "registry": registry,
    "memory": memory,
}


def _gpu_ways(record: Mapping[str, Any]) -> Mapping[str, Any]:
    (model,) = record["models"].values()
    (sae,) = model["saes"].values()
    return sae["ways"]


def _size_of(step: Mapping[str, Any]) -> str:
    return f"{step['rows'] / 1e6:.1f} million documents, {step['nnz'] / 1e9:.2f} billion non-zeros"


def _whole_grid(record: Mapping[str, Any]) -> dict[str, float]:
    """Side -> seconds for the whole grid."""
    return {side: sum(record[side]["seconds"].values()) for side in ("ours", "peer", "optimum")}


def _million(records: Records) -> dict[str, dict[str, str]]:
    header, *rows = records["study-million"]["rows"]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _mb(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"


def _percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f} %"


def _first(rows: Sequence[Sequence[str]]) -> Iterator[tuple[bool, Sequence[str]]]:
    for number, row in enumerate(rows):
        yield number == 0, row
