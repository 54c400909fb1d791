"""Find out whether a store can be written where it is to be, before anything is spent on it.

On a disk by writing: a file without a name, in the directory that the store's directory will be made in, leaves nothing
behind. On an object store by looking for the bucket alone. Whether a key may write there is known when it does, for
deleting an object again would leave an empty one for its "directory", and who plans need not be who runs.
"""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from pyarrow import fs as pafs

from featurestore.errors import StoreError
from featurestore.format.store_plan import PARTS, open_root
from featurestore.storage.files import is_local, shown


def check_writable(uri: str) -> None:
    """Refuse a place that no store can be written to.

    Raises:
        StoreError: The disk refuses a file there, or there is no such bucket.
    """
    fs, root = open_root(uri)
    if is_local(fs):
        _try_disk(uri, Path(root))
    elif isinstance(fs, pafs.S3FileSystem | pafs.GcsFileSystem):
        _look_for_bucket(uri, fs, root.partition("/")[0])


def _try_disk(uri: str, root: Path) -> None:
    there = next(parent for parent in (root / PARTS, root, *root.parents) if parent.exists())
    broken = next((parent for parent in (root, *root.parents) if parent.is_symlink() and not parent.exists()), None)
    if broken is not None:
        raise StoreError(
            f"{shown(uri)} cannot be written ({broken} is a link to nothing); mend the link or choose another place"
        )
    try:
        with tempfile.TemporaryFile(dir=there, buffering=0) as file:  # where the system can, it never has a name
            file.write(b"?")
    except OSError as exc:
        # Linux says of /proc that the file is not there.
        reason = "No files can be made there" if exc.errno == errno.ENOENT else exc.strerror or exc
        where = "" if there == root else f" in {there}"
        raise StoreError(
            f"{shown(uri)} cannot be written ({reason}{where}); choose another directory for the store"
        ) from None


def _look_for_bucket(uri: str, fs: pafs.FileSystem, bucket: str) -> None:
    try:
        found = fs.get_file_info(bucket).type
    except OSError:
        return  # it may be there: not everybody may look
    if found == pafs.FileType.NotFound:
        raise StoreError(
            f"{shown(uri)} cannot be written (there is no bucket '{bucket}'); make it or choose another store"
        )
