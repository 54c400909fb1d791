"""Stop the run of one store from outside, and no other.

A job on a cluster is found by the store in its metadata and stopped as Ray stops jobs. Any other run is known by its
lease, and asked through the store (`store_lease.ask_to_stop`); it has ended when it has let go of the lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from featurestore.errors import JobFailed, StoreError
from featurestore.storage.files import shown
from ray_jobs.run import store_lease
from ray_jobs.run.store_lease import Holder, ask_to_stop, current_holder, withdraw

# A run looks every ten seconds, and needs some to end its workers; a Ray that only just starts is waited for.
LONGEST_WAIT_SECONDS = 120.0
POLL_SECONDS = 0.5


def stop(store: str, address: str | None, say: Callable[[str], None]) -> list[str]:
    """Stop what runs on a store, and wait until it has ended.

    Args:
        store: URI of the store.
        address: URL of a cluster's dashboard, whose jobs are looked at first.
        say: Called with a line of text before waiting.

    Returns:
        What was stopped, in words.

    Raises:
        UsageError: No cluster at that address, or a store that cannot be written.
        JobFailed: Nothing runs on the store, or what does has not ended.
    """
    if address is not None:
        from ray_jobs.cluster.submit import stop_submitted

        if stopped := stop_submitted(store, address, say):
            return stopped
    there = current_holder(store)
    if there is None:
        there_neither = "" if address is None else f", and no job at {address} is of it"
        raise JobFailed(f"nothing runs on {shown(store)}{there_neither}")
    holder = there[1]
    try:
        ask_to_stop(store, holder)
    except OSError as error:
        raise StoreError(
            f"{shown(store)} cannot be written ({error.strerror or error}), so {holder} cannot be asked through it; "
            "end that process where it runs"
        ) from error
    say(f"asked {holder} to stop; it looks every ten seconds, and parts that are done stay")
    _wait(store, holder, there[0])
    return [str(holder)]


def _wait(store: str, holder: Holder, seen: bytes) -> None:
    """Wait until a holder has let go; it beats until then, whatever it is busy with."""
    started = heard = time.monotonic()
    while (now := current_holder(store)) is not None and now[1].token == holder.token:
        if now[0] != seen:
            seen, heard = now[0], time.monotonic()
        if time.monotonic() - heard > store_lease.STALE_SECONDS:
            withdraw(store, holder)
            raise JobFailed(f"nothing runs on {shown(store)}: {holder} has not been heard of for a minute")
        if time.monotonic() - started > LONGEST_WAIT_SECONDS:
            raise JobFailed(
                f"{holder} was asked to stop two minutes ago and still holds {shown(store)}; it stops when it comes to "
                "look, or end that process where it runs"
            )
        time.sleep(POLL_SECONDS)
    withdraw(store, holder)
