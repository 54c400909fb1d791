"""Features whose encoder rows nearly agree, kept beside a study in `STUDY/evidence/alike-SOURCE.json`.

The report names them beside the features that fire together. They come from the SAE, which a report is made without,
and hold no text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from featurestore.base.json_text import json_text
from featurestore.storage.files import atomic_write, list_files, reached, read_json

FORMAT, VERSION = "sparsemill.alike", 1
_DIGITS = 32  # of a source in a file's name: 128 bits

Alike = Mapping[str, Mapping[int, Sequence[tuple[int, float]]]]
"""SAE -> feature -> (other feature of the same SAE, cosine of their encoder rows), most alike first."""


def read_alike(directory: str | os.PathLike[str], source: str | None) -> Alike:
    """What is kept.

    Args:
        directory: Of a study's evidence, a path or URL.
        source: Of what it must come from (`featurestore.evidence.cache.source`); None accepts any.

    Returns:
        Nothing where there is no such file or it is damaged, as a cache may be.
    """
    try:
        fs, root = reached(os.fspath(directory))
        names = sorted(name for name in list_files(fs, root) if name.startswith("alike-"))
        for name in names if source is None else [_name(source)]:
            found = read_json(fs, f"{root}/{name}")
            if (found["format"], found["version"]) == (FORMAT, VERSION) and source in (None, found["source"]):
                return {
                    str(sae): {int(f): [(int(n), float(cosine)) for n, cosine in near] for f, near in features.items()}
                    for sae, features in found["saes"].items()
                }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}


def write_alike(directory: str | os.PathLike[str], source: str, alike: Alike) -> None:
    """Keep what was found, in place of what is there.

    Raises:
        OSError: Storage refused.
    """
    saes = {
        sae: {str(f): [[n, cosine] for n, cosine in features[f]] for f in sorted(features)}
        for sae, features in sorted(alike.items())
    }
    fs, root = reached(os.fspath(directory))
    text = json_text({"format": FORMAT, "version": VERSION, "source": source, "saes": saes})
    atomic_write(fs, f"{root}/{_name(source)}", f"{text}\n".encode())


def _name(source: str) -> str:
    return f"alike-{source[:_DIGITS]}.json"
