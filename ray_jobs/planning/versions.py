"""Deal with stores that another version of this program wrote: unfinished ones are refused, finished ones stay.

Two numbers in the identity decide: the *reading* of corpora (`featurestore.tables.READING`) and the *numerics* of the
engine (`ray_jobs.engine.NUMERICS`). With other numbers the same job would give rows of two kinds in one store. A store
that is whole needs no more rows: whatever else its identity records has to be the job's, and what earlier versions did
not record is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from featurestore.base.differences import differences, listed
from featurestore.errors import MismatchError
from featurestore.storage.files import shown
from featurestore.tables import READING
from ray_jobs.engine import NUMERICS

if TYPE_CHECKING:
    from featurestore.format.store_plan import StorePlan

NUMBERS = {"reading": ("reads corpora", READING), "engine": ("computes features", NUMERICS)}
FIRST_READING = "1"  # of stores that do not say


def other_version(stored: StorePlan) -> str | None:
    """The version that wrote a store, in words; None if it is this one, or no version of this program."""
    software = stored.identity.get("software")
    if not isinstance(software, Mapping) or "engine" not in software:
        return None
    changed = {}
    for key, (_, ours) in NUMBERS.items():
        theirs = str(software.get(key, FIRST_READING))
        if theirs != str(ours):
            changed[key] = theirs
    if not changed:
        return None
    later = any(theirs.isdecimal() and int(theirs) > NUMBERS[key][1] for key, theirs in changed.items())
    does = " and ".join(
        f"{NUMBERS[key][0]} differently ({key} {theirs}, here {NUMBERS[key][1]})" for key, theirs in changed.items()
    )
    return f"{'a later' if later else 'an earlier'} version, which {does}"


def unfinished(uri: str, version: str) -> MismatchError:
    """Why an unfinished store of another version is not resumed."""
    return MismatchError(
        f"{shown(uri)} was begun by {version}; finish it with the version that began it, or give the job another store"
    )


def check_finished(
    uri: str, stored: StorePlan, job: StorePlan, version: str, own_units: bool, note: Callable[[str], None] | None
) -> None:
    """Check that a finished store of another version is the job's as far as it says, and say that it stays.

    Args:
        uri: The store.
        stored: Its plan.
        job: What this version would write.
        version: What `other_version` said.
        own_units: Whether the job says how many documents a unit has.
        note: Called with the sentence.

    Raises:
        MismatchError: It is another job's.
    """
    theirs, ours = _comparable(stored.identity), _comparable(job.identity)
    changes = differences(theirs, _recorded(theirs, ours))
    if not changes and own_units:
        changes = differences({"units of": stored.unit_size}, {"units of": job.unit_size})
    if changes:
        raise MismatchError(
            f"{shown(uri)} was written by another job: {listed(changes)}; "
            "choose another store or restore these settings"
        )
    unsaid = ", ".join(_unrecorded(theirs, ours, ""))
    if note:
        note(
            f"{shown(uri)} was finished by {version}, and stays as it is"
            + (f" (not recorded then, so not compared: {unsaid})" if unsaid else "")
            + "; to have it computed by this version, give the job another store"
        )


def _comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity without version numbers, and of the corpus' files only what no reading can change."""
    corpus = dict(identity.get("corpus") or {})
    corpus["files"] = sorted({str(file.get("sha256")) for file in corpus.get("files") or ()})
    software = {key: value for key, value in dict(identity["software"]).items() if key not in NUMBERS}
    return {**identity, "corpus": corpus, "software": software}


def _recorded(theirs: Any, ours: Any) -> Any:
    """Of ours, the keys that theirs has too."""
    if not (isinstance(theirs, Mapping) and isinstance(ours, Mapping)):
        return ours
    return {key: _recorded(theirs[key], ours[key]) for key in theirs if key in ours}


def _unrecorded(theirs: Any, ours: Any, path: str) -> Iterator[str]:
    """The keys that only ours has."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for key, value in ours.items():
            name = f"{path}.{key}" if path else str(key)
            if key in theirs:
                yield from _unrecorded(theirs[key], value, name)
            else:
                yield name
