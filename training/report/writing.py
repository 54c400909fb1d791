"""Write the report of a study or of a store to where it was asked for, or to where it belongs."""

from __future__ import annotations

from pathlib import Path

from featurestore.errors import UsageError
from featurestore.format.store_plan import is_store
from featurestore.storage.user_outputs import check_free, whole_file
from featurestore.url_secrets import shown
from training.report.store_page import store_report
from training.report.study_files import is_study
from training.report.study_page import study_report, write_study_report


def write_report(place: str, out: str | None = None, private: bool = False, overwrite: bool = False) -> str:
    """Write one HTML page; its path.

    Args:
        place: Directory or URL of a finished study, or of a store.
        out: Where to; by default a study's own `report.html`, and for a store `NAME-report.html` here.
        private: Whether texts, ids of documents and names of files stay out.
        overwrite: Whether a file that is there already may be replaced; a study's own page always is.

    Raises:
        StudyError, StoreError: It is damaged.
        UsageError: There is neither, something is there already, or a private page has no place of its own.
    """
    of_study = is_study(place)
    if not of_study and not is_store(place):
        inside = next((parent for parent in _above(place) if is_study(parent)), None)
        hint = f"; did you mean {inside}, in which it lies?" if inside else "; give the directory of one"
        raise UsageError(f"{shown(place)} is neither a study, with a results.json, nor a feature store{hint}")
    if out is not None and not out.lower().endswith((".html", ".htm")):
        raise UsageError(f"-o {shown(out)}: a report is an HTML page; give a name that ends in .html")
    if out is None and of_study:
        if private:
            raise UsageError("--no-text makes another page than the study's own; say where with -o FILE.html")
        return write_study_report(place)
    out = out or f"{shown(place).rstrip('/').rsplit('/', 1)[-1]}-report.html"
    check_free(out, overwrite=overwrite)
    page = (study_report if of_study else store_report)(place, private)
    with whole_file(out) as file:
        file.write(page)
    return out


def _above(place: str) -> tuple[str, ...]:
    """The two directories in which a local place lies."""
    return () if "://" in place else tuple(str(parent) for parent in Path(place).parents[:2])
