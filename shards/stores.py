"""From a path or an address to the storage that serves it."""

from __future__ import annotations

import os
from pathlib import Path

from shards.local_storage import LocalStorage
from shards.patience import Patience
from shards.remote_storage import RemoteStorage
from shards.storage import Storage


def open_storage(url: str | Path, *, patience: Patience | None = None) -> Storage:
    """Open a folder by path, or any address that fsspec knows (`s3://…`, `gs://…`, `memory://…`). Touches nothing yet.

    Args:
        url: path or address.
        patience: how often and how long a store is asked.
    """
    text = os.fspath(url)
    if "://" not in text:
        return LocalStorage(text)
    if text.startswith("file://"):
        return LocalStorage(text.removeprefix("file://"))
    return RemoteStorage(text, patience=patience)
