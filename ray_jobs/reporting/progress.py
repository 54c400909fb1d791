"""Show how far a run is: one live line on a terminal, an occasional line in a log.

Everything goes to stderr; stdout belongs to results. Time left counts tokens and not documents, because units begin
with their longest documents.
"""

from __future__ import annotations

from featurestore.base.live import LiveLine
from featurestore.base.number_words import counted, duration
from featurestore.checks.run_files import RunSnapshot
from ray_jobs.reporting.rate import JobSize


class Progress(LiveLine):
    """Prints how far a run is."""

    def update(self, now: RunSnapshot, job: JobSize) -> None:
        """Show how far the run is, if it is time to."""
        self.show(lambda: describe(now, job))


def describe(now: RunSnapshot, job: JobSize) -> str:
    """One line about a run, e.g. "1,204 of 3,728 documents (32 %) · 4,120 tokens/s · 0:41 left · 2 workers"."""
    done = job.documents_before + now.documents + sum(unit.documents for unit in now.under_way)
    percent = 100 * done // max(job.documents, 1)
    parts = [f"{done:,} of {job.documents:,} documents ({percent} %)"]
    if now.tokens_per_second is not None:
        left = (job.documents - done) * job.mean_tokens / now.tokens_per_second
        parts += [f"{now.tokens_per_second:,.0f} tokens/s", f"{duration(left)} left"]
    if now.workers < now.workers_wanted:
        parts.append(f"{now.workers} of {counted(now.workers_wanted, 'worker')} ready")
    else:
        parts.append(counted(now.workers, "worker"))
    if now.errors:
        parts.append(counted(now.errors, "error"))
    return " · ".join(parts)
