"""Write the report of a study or of a store to where it was asked for, or to where it belongs."""

from __future__ import annotations

from featurestore.errors import UsageError
from featurestore.storage.outputs import check_free, whole_file
from featurestore.urls import shown
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
        StudyError, StoreError: There is neither, or it is damaged.
        UsageError: Something is there already, or a private page has no place of its own.
    """
    of_study = is_study(place)
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
