"""Open s3:// and gs:// URLs with Arrow's native file systems, with finite timeouts and retries.

    s3://[key:secret@]bucket/path[?region=...&endpoint_override=host:port&scheme=http]
    gs://bucket/path[?endpoint_override=host:port&scheme=http&anonymous=true]

Credentials come from the standard places (AWS_* variables, ~/.aws, instance metadata; GOOGLE_APPLICATION_CREDENTIALS)
or from the URL; no message and no file of ours repeats them (`url_secrets.shown`). AWS_ENDPOINT_URL_S3 and
AWS_ENDPOINT_URL lead to other S3 services (MinIO, Ceph, R2). Everything that can be retried is retried here, so callers
see an error only when waiting longer would not help.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs as pafs

from featurestore.errors import UsageError

# A handshake within a region takes milliseconds, across the world a third of a second; ten seconds outlast a lost SYN
# and its first three repetitions. Without an end, one dead address holds a worker, and with it a unit, for ever.
CONNECT_SECONDS = 10.0
# Without a single byte in either direction. S3 answers within milliseconds, and sends blanks while it joins an upload.
REQUEST_SECONDS = 20.0
# The SDK waits between attempts, twice as long each time and 20 s at most: six attempts bridge half a minute, which a
# throttled prefix or a restarting gateway needs, and end within two and a half against a host that swallows everything.
ATTEMPTS = 6
GCS_SECONDS = 90  # Google's client counts time, not attempts; its default of 15 minutes outlasts anybody's patience
FIRST_ATTEMPTS, FIRST_SECONDS = 3, 5  # instead of these until a place has answered once (`reachable`)

_S3_OPTIONS = ("region", "endpoint_override", "scheme")
_GCS_OPTIONS = ("endpoint_override", "scheme", "anonymous")


def is_object_store(uri: str) -> bool:
    """Whether this module opens `uri`."""
    return uri.startswith(("s3://", "gs://", "gcs://"))


def object_store(uri: str, patient: bool = True) -> tuple[pafs.FileSystem, str]:
    """The file system and the path `bucket/key` of a URL.

    Args:
        uri: The URL.
        patient: Whether its client tries again for long.

    Raises:
        UsageError: The URL names no bucket, or has an option that does not exist.
        OSError: The bucket's region cannot be found.
    """
    parts = urlsplit(uri)
    bucket = parts.hostname or ""
    place = f"{parts.scheme}://{bucket if '@' in parts.netloc or ':' not in parts.netloc else ''}"
    if not bucket or bucket != (parts.netloc.rpartition("@")[2]):
        raise UsageError(
            f"{place}: is no bucket; give {parts.scheme}://BUCKET/PATH with a lower-case bucket and no port"
        )
    known = _S3_OPTIONS if parts.scheme == "s3" else _GCS_OPTIONS
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if strange := [name for name in options if name not in known]:
        raise UsageError(f"{place}: unknown option '{strange[0]}' in the URL; there are: {', '.join(known)}")
    path = f"{bucket}/{unquote(parts.path).strip('/')}".rstrip("/")
    if parts.scheme != "s3":
        return _gcs(options, GCS_SECONDS if patient else FIRST_SECONDS), path
    key, secret = (unquote(text) if text else None for text in (parts.username, parts.password))
    endpoint = options.get("endpoint_override") or _environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    scheme, host = options.get("scheme"), endpoint
    if endpoint and "://" in endpoint:
        scheme, _, host = endpoint.rstrip("/").partition("://")
    region = options.get("region") or _environment("AWS_REGION", "AWS_DEFAULT_REGION")
    if not region:
        region = "us-east-1" if host else _region(bucket)
    return _s3(key, secret, region, scheme or "https", host, ATTEMPTS if patient else FIRST_ATTEMPTS), path


@lru_cache(maxsize=32)  # a client has a pool of connections: one for each place, not one for each part
def _s3(
    key: str | None, secret: str | None, region: str, scheme: str, endpoint: str | None, attempts: int
) -> pafs.S3FileSystem:
    return pafs.S3FileSystem(
        access_key=key,
        secret_key=secret,
        region=region,
        scheme=scheme,
        endpoint_override=endpoint,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
        allow_delayed_open=True,  # a small file takes one PUT instead of the three requests of a multipart upload
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=attempts),
    )


@lru_cache(maxsize=1024)
def _region(bucket: str) -> str:
    return str(pafs.resolve_s3_region(bucket))


def _gcs(options: dict[str, str], seconds: int) -> pafs.GcsFileSystem:
    if not hasattr(pafs, "GcsFileSystem"):
        raise UsageError("gs:// URLs need a pyarrow that was built with Google Cloud Storage; install it from PyPI")
    return pafs.GcsFileSystem(
        anonymous=options.get("anonymous", "").lower() == "true",
        scheme=options.get("scheme"),
        endpoint_override=options.get("endpoint_override"),
        retry_time_limit=timedelta(seconds=seconds),
    )


def _environment(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


STORAGE_ERRORS = (OSError, ValueError, pa.ArrowException)
"""What opening a file system can raise."""
