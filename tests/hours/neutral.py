"""Make an output neutral: what differs between two machines or two runs gives way to what kind of thing it is.

Each rule says what it is about and shows an example, which a test holds it to. A rule takes more than it must where it
is in doubt: a page that differs on another machine helps nobody, and figures have tests of their own. What stays is
what a person reads an output for: its words and their order, and what is counted and not measured: documents, units.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

WORDS = 5  # of a text in a row: whoever sees so many has seen a piece of it


class Rule(NamedTuple):
    """One thing that differs, and an example.

    Attributes:
        about: What it is.
        pattern: Where it stands.
        put: What stands there instead.
        example: An output that has it.
        becomes: The same when it is neutral.
    """

    about: str
    pattern: str
    put: str
    example: str
    becomes: str


# Of the machine, of the moment, and of what is installed.
PLACES_AND_TIMES = (
    Rule(
        "progress, of which a log has a line now and then",
        r"^(?:[\d,]+ of [\d,]+ documents \(\d+ %\) · .*|\d+/\d+ methods  \S+)\n",
        "",
        "120 of 240 documents (50 %) · 623 tokens/s · 0:19 left\n4/6 methods  l9_4k:max\nall done",
        "all done",
    ),
    Rule(
        "a unit that an idle worker did a second time, as workers do where another one is slow",
        r"^  events +second run \d+\n",
        "",
        "  last run  finished\n  events     second run 1\nall done",
        "  last run  finished\nall done",
    ),
    Rule("Ray's folder", r"/tmp/ray[\w./-]*/", "RAY/", "log  /tmp/ray-_gr/session_2/job.log", "log  RAY/job.log"),
    Rule(
        "a submission", r"sparsemill-[0-9a-f]{8}-\d{8}-\d{6}", "JOB", "as sparsemill-9d5ac56b-20261130-145135", "as JOB"
    ),
    Rule(
        "a clock time",
        r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]\d+(?:\+00:00)?",
        "TIME",
        "since 2026-11-30T14:51:45.600+00:00",
        "since TIME",
    ),
    Rule("a date", r"\b20\d\d-\d\d-\d\d\b", "DATE", "measured on 2026-11-30", "measured on DATE"),
    Rule("a port", r"127\.0\.0\.1:\d{4,}", "127.0.0.1:PORT", "http://127.0.0.1:35305", "http://127.0.0.1:PORT"),
    Rule("a process", r"process \d+ on \S+", "process N on HOST", "by process 16 on vm", "by process N on HOST"),
    Rule("whose file it is", r"\.log on \S+$", ".log on HOST", "job-driver.log on vm", "job-driver.log on HOST"),
    Rule("Python in a path", r"\bpython3\.\d+/", "python3/", "~/venv/lib/python3.11/site", "~/venv/lib/python3/site"),
    Rule("Python", r"(python: )[\d.]+", r"\1N", "ok  python: 3.11.7", "ok  python: N"),
    Rule(
        "packages",
        r"(packages: ).*",
        r"\1torch N, ray N, ...",
        "packages: torch 2.13.0, ...",
        "packages: torch N, ray N, ...",
    ),
    Rule(
        "the processor",
        r"(processor: )\d+ cores?, .*",
        r"\1N cores, N MB of memory, DTYPE",
        "processor: 2 cores, 25.3 GB of memory, float32",
        "processor: N cores, N MB of memory, DTYPE",
    ),
    Rule("a GPU", r"^.* GPU: .*(?:\n {11}.*)?$", "note       GPU: ...", "ok  GPU: none; it is", "note       GPU: ..."),
    Rule(
        "cores of a local Ray",
        r"(starts here: 1 node), \d+ CPUs?",
        r"\1, N CPUs",
        "starts here: 1 node, 2 CPUs",
        "starts here: 1 node, N CPUs",
    ),
    Rule(
        "workers that ran",
        r"(?<=, )\d+ workers?(?=\))",
        "N workers",
        "(start-up included, 2 workers)",
        "(start-up included, N workers)",
    ),
    Rule("hours of a plan", r"^(hours      ).*", r"\1...", "hours      unknown: no rate measured", "hours      ..."),
    Rule(
        "money", r"^(cost       ).*", r"\1...", "cost       under 0.01 USD (0.80 a worker and hour)", "cost       ..."
    ),
    Rule("a rate", r"[\d,]+ tokens/s", "N tokens/s", "(401,693 tokens/s a worker", "(N tokens/s a worker"),
    Rule(
        "a duration",
        r"\b[\d.]+ (?:s|min|hours)\b|\bunder a second",
        "N s",
        "in 57 s; in under a second",
        "in N s; in N s",
    ),
)

# How far a run has come by the time that it is looked at.
RUNS = (
    Rule(
        "how fast a run is, unit by unit, of which a run that has only begun says less",
        r"(?:^  (?:workers|rate|worker|under way|slowest)  .*\n)+",
        "",
        "  worker     N tokens/s each\n  slowest    unit 7: N s\n  slowest    unit 4: N s\n",
        "",
    ),
    Rule(
        "units of a run",
        r"^(  units      )(?!(\d+) of \2$)\d+ of (\d+).*",
        r"\1N of \3",
        "  units      1 of 10, 2 running",
        "  units      N of 10",
    ),
    Rule(
        "documents of a run",
        r"^(  documents  )(?!(\d+) of \2,)\d+ of (\d+),.*",
        r"\1N of \3",
        "  documents  32 of 320, 0 with an error",
        "  documents  N of 320",
    ),
    Rule("tokens of a run", r"^(  tokens     )[\d,]+$", r"\1N", "  tokens     3,722", "  tokens     N"),
    Rule(
        "an unfinished store",
        r"unfinished: \d+ of (\d+) parts (?:is|are) there(.*) \(.*\)",
        r"unfinished: N of \1 parts are there\2 (...)",
        "unfinished: 1 of 10 parts is there; rerun extract to finish it (1 part, 32 documents, N bytes)",
        "unfinished: N of 10 parts are there; rerun extract to finish it (...)",
    ),
    Rule(
        "what is left to do",
        r"\d+ units? to do \(\d+ (?:is|are) there\), about [\d,]+ tokens",
        "N units to do (N are there), about N tokens",
        "1 unit to do (9 are there), about 39,941 tokens; connecting",
        "N units to do (N are there), about N tokens; connecting",
    ),
    Rule(
        "what was left to do",
        r"\d+ documents, [\d,]+ tokens in",
        "N documents, N tokens in",
        "288 documents, 4,657 tokens in",
        "N documents, N tokens in",
    ),
    Rule(
        "a line of Ray's sources",
        r"(\w+\.py:)\d+ --",
        r"\1N --",
        "INFO job_manager.py:581 -- Runtime",
        "INFO job_manager.py:N -- Runtime",
    ),
    Rule(
        "whether a job has begun",
        r"^(JOB: )(?:pending|running);",
        r"\1pending;",
        "JOB: running; the same",
        "JOB: pending; the same",
    ),
)

# What bytes come to depends on the last bits of what is computed, and on compression.
BYTES = (
    Rule("a hash", r"\b[0-9a-f]{32}(?:[0-9a-f]{32})?\b", "HASH", f"sha256 {'c27d62f5' * 8}", "sha256 HASH"),
    Rule(
        "the beginning of a hash",
        r"\b[0-9a-f]{12}\.\.\.",
        "HASH...",
        "213e9e44b492... -> 0e29e0afa1f1...",
        "HASH... -> HASH...",
    ),
    Rule("bytes in JSON", r'("\w*bytes\w*": )\d+', r"\1N", '"bytes_out": 3362937,', '"bytes_out": N,'),
    Rule(
        "bytes", r"\b(bytes +)\d[\d,]*(?: \([\d,]+ a document\))?$", r"\1N", "bytes   1,703 (7 a document)", "bytes   N"
    ),
    Rule(
        "so many bytes", r"\b[\d,]{4,} bytes", "N bytes", "(240 documents, 1,703,585 bytes)", "(240 documents, N bytes)"
    ),
    Rule("a size", r"\b[\d,]+\.\d [kMGT]B", "N MB", "about 1.3 GB a worker", "about N MB a worker"),
)

# What a study says: its figures, and the features that they lead to.
FIGURES = (
    Rule(
        "cells that were chosen in some seeds only",
        r"^   (?:SAE|baseline), selected .*\n",
        "",
        "   baseline, selected     0.895  [0.822, 0.952]\n   tfidf",
        "   tfidf",
    ),
    Rule(
        "the heading of a table of methods",
        r"^   method +macro F1  95%.*\n-+$",
        "   method  macro F1  95% interval  accuracy  AUROC  C  validation F1  chosen\n----------",
        "   method     macro F1  95% interval    accuracy\n-----",
        "   method  macro F1  95% interval  accuracy  AUROC  C  validation F1  chosen\n----------",
    ),
    Rule(
        "a row of a table of methods",
        r"^[* ]  (\S+) +\d\.(?:\d{3}|xxx)  \[.*$",
        r"   \1  0.xxx  [0.xxx, 0.xxx]  0.xxx  0.xxx  N  0.xxx  N/N",
        "*  l9_4k:max  0.904  [0.842, 0.954]     0.918  0.989   10..1000          0.850",
        "   l9_4k:max  0.xxx  [0.xxx, 0.xxx]  0.xxx  0.xxx  N  0.xxx  N/N",
    ),
    Rule(
        "the two that a study compares, and where the line broke between them",
        r"\((?:selected\s+by[^)]*|l\d+_\d+k:\w+)\)\s+and\s+the\s+best\s+baseline\s+\((\w+)\):\s+macro\s+F1\s+"
        r"(\S+)\s+against\s+(\S+)\s+(\S+)\s+(\[\S+)\s+(\S+\])",
        r"(CELL) and the best baseline (\1): macro F1 \2 against \3 \4 \5 \6",
        "features (selected by validation:\nl9_4k:sum in 3 of 5 splits) and the best baseline\n(hidden_mean): macro F1 "
        "0.9\nagainst 0.8, +0.1\n[0.0, 0.2]",
        "features (CELL) and the best baseline (hidden_mean): macro F1 0.9 against 0.8, +0.1 [0.0, 0.2]",
    ),
    Rule(
        "where the line of a comparison broke",
        r"^(    (?:no difference shown|higher with|lower with) .*[^)])\n      (?=\S)",
        r"\1 ",
        "    no difference shown at n = 160 between a 0.9 and b\n      0.8 (0.1",
        "    no difference shown at n = 160 between a 0.9 and b 0.8 (0.1",
    ),
    Rule(
        "how often the method of a model file was selected",
        r"^(models/\w+\.json is \S+ macro F1 \S+) \(selected[^)]*\)",
        r"\1",
        "models/sae.json is l9_4k:POOL, macro F1 0.9 (selected in 3 of 5 splits; 0.8 is\nof all that was selected)",
        "models/sae.json is l9_4k:POOL, macro F1 0.9",
    ),
    Rule(
        "which share of the decision the features carry",
        r"^  [\d,]+ features have weight in it; .*$",
        "  N features have weight in it; ...",
        "  1,021 features have weight in it; the 20 that are kept carry 11% of the decision",
        "  N features have weight in it; ...",
    ),
    Rule(
        "the pooling of the cell that was chosen",
        r"(?<!^   )\b(l\d+_\d+k:)(?:(?:max|sum)\b(?: (?= ))?|mean\b)(?! in \d of)",
        r"\1POOL",
        "rec.autos  l9_4k:max   0.xxx\nrec.autos  l9_4k:mean  0.xxx",
        "rec.autos  l9_4k:POOL  0.xxx\nrec.autos  l9_4k:POOL  0.xxx",
    ),
    Rule(
        "which poolings are compared",
        r"(between|higher with) (?:max|sum|mean)( \S+)? (and|than with) (?:max|sum|mean)\b",
        r"\1 POOL\2 \3 POOL",
        "no difference shown between mean and sum",
        "no difference shown between POOL and POOL",
    ),
    Rule(
        "how sure a comparison is, and where a line broke before that",
        r",\s+corrected\s+p\s+[=<]\s+[\d.]*\d",
        ", corrected p = N",
        "macro F1,\n      corrected p < 0.001)",
        "macro F1, corrected p = N)",
    ),
    Rule(
        "an operating point",
        r"^(method +precision +recall)  .*\n-+\n(?:.+\n)*?(?=Probabilities|Model files|\n)",
        r"\1 ...\n...\n",
        "method  precision  recall  handed on\n------\ntfidf  0.889 [0.565, 0.980]\nnote: tfidf\nProbabilities of",
        "method  precision  recall ...\n...\nProbabilities of",
    ),
    Rule(
        "calibration",
        r"^(Probabilities of \S+): (?!\.\.\.).+\n(?:(?!Probabilities|Model files).+\n)*",
        r"\1: ...\n",
        "Probabilities of tfidf: sigmoid, log loss 0.5\n(before 0.6)\nModel files",
        "Probabilities of tfidf: ...\nModel files",
    ),
    Rule("a feature's number", r"\b(l\d+_\d+k):\d+", r"\1:N", "l9_4k:2169  -> sci.space", "l9_4k:N  -> sci.space"),
    Rule(
        "a feature that decides, and its documents",
        r"^(  \S+:N  -> )\S+   weight .*\n(?:      .*\n)*",
        r"\1CLASS   weight N (N% of the decision)   fires in: CLASS N%, ...\n"
        r"      strongest, drawn, against  N  CLASS  ID  TEXT\n",
        "  l9_4k:N  -> ham   weight 0.2 (1% of the decision)   fires in: ham 44%\n"
        "      strongest   408  ham  d7  text\n",
        "  l9_4k:N  -> CLASS   weight N (N% of the decision)   fires in: CLASS N%, ...\n"
        "      strongest, drawn, against  N  CLASS  ID  TEXT\n",
    ),
    Rule(
        "a feature as the one before",
        r"^(  \S+:N  -> CLASS .*\n      strongest.*\n)\1+",
        r"\1  ...\n",
        "  l9_4k:N  -> CLASS w\n      strongest, x\n  l9_4k:N  -> CLASS w\n      strongest, x\n",
        "  l9_4k:N  -> CLASS w\n      strongest, x\n  ...\n",
    ),
    Rule(
        "a hyper-parameter",
        r"\bC = [\d.e+-]*\d",
        "C = N",
        "(all labelled documents, C = 1e-05):",
        "(all labelled documents, C = N):",
    ),
    Rule(
        "a reason",
        r"^    ([+-])[\d.e-]+  (\S+:N)  .*",
        r"    \1N  \2  at TOKENS",
        "    +1.98  l9_4k:N  at 'one', 'two'",
        "    +N  l9_4k:N  at TOKENS",
    ),
    Rule(
        "what is to be known of a model's operating point, which depends on its threshold",
        r"^warning: the model's operating point: .*\n",
        "",
        "warning: the model's operating point: precision 0.9 is reached on few\n40 documents",
        "40 documents",
    ),
    Rule(
        "what an operating point decides",
        r"^  flagged as (\S+): .*\n  of [\d,]+ (\S+ documents?) .*\n  undecided: .*$",
        r"  flagged as \1: N, ...\n  of N \2 N found, ...\n  undecided: N, ...",
        "  flagged as ham: 7, of which 5 right: precision 0.7 [0.4, 0.9]\n  of 20 ham documents 5 found: recall 0.2\n"
        "  undecided: 3",
        "  flagged as ham: N, ...\n  of N ham documents N found, ...\n  undecided: N, ...",
    ),
    Rule(
        "a figure",
        r"(?<![\w.])[+-]?\d\.\d{3}\b",
        "0.xxx",
        "+0.010 [-0.044, 0.064]; 1.000",
        "0.xxx [0.xxx, 0.xxx]; 0.xxx",
    ),
    Rule(
        "predicted classes",
        r"(\d+ documents?): (?:[\w.-]+ \d+(?:, )?)+",
        r"\1: CLASS N, ...",
        "40 documents: ham 6, spam 34; written to a.csv",
        "40 documents: CLASS N, ...; written to a.csv",
    ),
    Rule(
        "a predicted document",
        r"^(\d+)\t\S+\t0\.xxx\t(\w*)\t\S+",
        r"\1\tCLASS\t0.xxx\t\2\tCLASS",
        "1\tham\t0.xxx\tno\tspam",
        "1\tCLASS\t0.xxx\tno\tCLASS",
    ),
    Rule(
        "drift",
        r"(drift: )[\d,]+ of [\d,]+",
        r"\1N of N",
        "drift: 0 of 2,524 used features",
        "drift: N of N used features",
    ),
    Rule(
        "what drift could be seen",
        r"(from about )[\d.e+]+( percentage points)",
        r"\1N\2",
        "40 documents can show a shift from about 22 percentage points up",
        "40 documents can show a shift from about N percentage points up",
    ),
    Rule(
        "a feature's words",
        r"^(\S+:N  ).*( \[evidence, keywords\])$",
        r"\1WORDS\2",
        "l9_4k:N  a, b [evidence, keywords]",
        "l9_4k:N  WORDS [evidence, keywords]",
    ),
    Rule(
        "where a feature fires",
        r"^(  \S+:N  fires on )\d+ tokens?  max \S+  sum \S+\n(?:    .*\n)+",
        r"\1N tokens  max N  sum N\n    TEXT with [TOKEN|N]\n",
        "  l9_4k:N  fires on 2 tokens  max 7.5  sum 12\n    some [words|7.5] of\n    [somebody|4.5]\n",
        "  l9_4k:N  fires on N tokens  max N  sum N\n    TEXT with [TOKEN|N]\n",
    ),
    Rule(
        "documents of a feature",
        r"active in \d+ documents; (\w+) is \S+ on average over all documents, \S+ at most:\n(?: +[\d.]+  .*\n)+",
        r"active in N documents; \1 is N on average over all documents, N at most:\n   N  ID  text=TEXT  ...\n",
        "active in 23 documents; max is 7.4 on average over all documents, 16 at most:\n    16  d5  text=hot\n",
        "active in N documents; max is N on average over all documents, N at most:\n   N  ID  text=TEXT  ...\n",
    ),
)
RULES = (*PLACES_AND_TIMES, *RUNS, *BYTES, *FIGURES)


def neutral(output: str, places: Mapping[str, str] | None = None) -> str:
    """An output without what differs from machine to machine and from run to run.

    Args:
        output: As it was printed.
        places: Path -> what stands for it; longer ones go first.
    """
    places = places or {}
    for place in sorted(places, key=len, reverse=True):
        output = output.replace(place, places[place])
    for rule in RULES:
        output = re.sub(rule.pattern, rule.put, output, flags=re.M)
    return output


def pieces(output: str, texts: Iterable[str]) -> list[str]:
    """Every few words in a row of an output that stand in one of the texts: those are other people's."""
    said = {" ".join(words) for line in output.splitlines() for words in _rows_of(line)}
    return sorted(said & {" ".join(words) for text in texts for words in _rows_of(text)})


def _rows_of(text: str) -> Iterable[list[str]]:
    words = re.findall(r"\w+", text.lower())
    return (words[i : i + WORDS] for i in range(len(words) - WORDS + 1))
