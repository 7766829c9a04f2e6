"""A dataset in a store that fsspec can open: conditional creation where the store has it, reading with patience."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Literal, TypeVar, cast

from shards.errors import DatasetError, MissingLibraryError, StoreError
from shards.patience import Patience
from shards.storage import COPY_BYTES, Storage

_PART_BYTES = 1 << 24  # of a multipart upload: what a writer holds in memory; 10,000 parts are 156 GiB
_RANGE_BYTES = 1 << 24  # of one request: what takes longer than its time limit is asked for again
_FLAT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss"})  # protocols of object stores

T = TypeVar("T")


class RemoteStorage(Storage):
    """Any address that fsspec can open. Object stores show an object only when it is complete, so uploads are atomic by nature.

    Whatever reads is asked again until it is answered, see `Patience`. What writes is not: whether a write that failed has
    happened is for the exactly-once protocol above to find out.
    """

    def __init__(self, url: str, *, patience: Patience | None = None) -> None:
        super().__init__(url.rstrip("/"))
        self.patience = patience or Patience()
        protocol = url.partition("://")[0]
        try:
            import fsspec

            fsspec.get_filesystem_class(protocol)
        except ImportError as problem:
            raise MissingLibraryError(
                f"{url} needs a library that is not installed ({problem}); for s3 install the extra: ostraka[s3]"
            ) from problem
        except ValueError as problem:
            raise DatasetError(
                f"{url}: fsspec knows no protocol {protocol!r}; give a folder or an address such as s3://…"
            ) from problem

    @property
    def is_local(self) -> bool:
        return False

    @property
    def _system(self) -> Any:
        import fsspec

        # fsspec keeps one instance per address and process, so asking again is cheap and survives a fork.
        return fsspec.core.url_to_fs(self.url)[0]

    def path(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def open_read(self, name: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_RemoteFile(self, name, self.size(name)), COPY_BYTES))

    def read(self, name: str) -> bytes:
        system, path = self._system, self.path(name)
        return bytes(self.patience.ask(path, lambda: system.cat_file(path)))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        pieces = []
        for start in range(offset, offset + size, _RANGE_BYTES):
            wanted = min(_RANGE_BYTES, offset + size - start)
            pieces.append(self._piece(name, start, wanted))
            if len(pieces[-1]) < wanted:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, name: str, start: int, size: int) -> bytes:
        # A range past the end is a failure for one store, with an error of its own, and no bytes for another.
        def past_the_end() -> bytes | None:
            try:
                return b"" if self.size(name) <= start else None
            except StoreError:
                return None

        system, path = self._system, self.path(name)

        def request() -> bytes:
            data = bytes(system.cat_file(path, start=start, end=start + size))[:size]  # some web servers send more
            if len(data) < size and start + len(data) < int(system.size(path) or 0):
                raise OSError(f"the answer to a range of {size:,} bytes ended after {len(data):,}")
            return data

        return self.patience.ask(path, request, on_failure=past_the_end)

    def exists(self, name: str) -> bool:
        return bool(self._asked(name, lambda system, path: system.isfile(path)))

    def size(self, name: str) -> int:
        found = self._asked(name, lambda system, path: system.size(path))
        if found is None:
            raise StoreError(f"{self.path(name)}: its server does not say how large it is; read it from a copy")
        return int(found)

    def _asked(self, name: str, question: Callable[[Any, str], T]) -> T:
        """Ask for what may have changed since it was last asked."""
        # Taken here and not in the thread that asks: fsspec opens plain connections anew for each thread.
        system, path = self._system, self.path(name)

        def request() -> T:
            system.invalidate_cache()  # other workers write here too, so no listing may be remembered
            return question(system, path)

        return self.patience.ask(path, request)

    def _entries(self, folder: str) -> tuple[list[str], list[str]]:
        try:
            entries = self._asked(folder, lambda system, path: system.ls(path, detail=True))
        except FileNotFoundError:
            return [], []
        files: list[str] = []
        folders: list[str] = []
        place = self._system._strip_protocol(self.path(folder)).rstrip("/")
        for entry in entries:
            if entry["name"].rstrip("/") == place:
                continue  # some stores list an object that stands for the folder itself
            base = entry["name"].rstrip("/").rpartition("/")[2]
            (folders if entry["type"] == "directory" else files).append(base)
        return files, folders

    def create(self, name: str, data: bytes) -> bool:
        self._make_folder(name)
        try:
            self._system.pipe_file(self.path(name), data, mode="create")
            return True
        except FileExistsError:
            return False
        except (NotImplementedError, TypeError, ValueError, OSError):
            # No conditional write here, or two of them met and the store wants both to come again (S3 answers 409). Looking
            # first is enough, see `LocalStorage.publish`; a store that takes nothing at all fails again below, and says why.
            if self.exists(name):
                return False
            self._system.pipe_file(self.path(name), data)
            return True

    def replace(self, name: str, data: bytes) -> None:
        self._make_folder(name)
        self._system.pipe_file(self.path(name), data)

    def open_write(self, temporary: str) -> BinaryIO:
        self._make_folder(temporary)
        upload = self._system.open(self.path(temporary), "wb", block_size=_PART_BYTES)
        return cast(BinaryIO, io.BufferedWriter(upload, COPY_BYTES))

    def publish(self, temporary: str, name: str, *, existing: Literal["keep", "replace"] = "keep") -> bool:
        if not self.exists(temporary):
            raise FileNotFoundError(self.path(temporary))
        if existing == "keep" and self.exists(name):
            return False
        self._system.mv(self.path(temporary), self.path(name))
        return True

    def remove(self, name: str) -> None:
        try:
            self._system.rm_file(self.path(name))
        except FileNotFoundError:
            return

    def abandon_uploads(self, *, older_than_s: float) -> int:
        system = self._system
        if not hasattr(system, "list_multipart_uploads"):
            return 0
        bucket, _, prefix = str(system._strip_protocol(self.url)).partition("/")
        begun_before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        own = [
            upload
            for upload in system.list_multipart_uploads(bucket)
            if upload["Key"].startswith(f"{prefix}/") and upload["Initiated"] < begun_before
        ]
        for upload in own:
            system.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        return len(own)

    def _make_folder(self, name: str) -> None:
        # Object stores have no folders, and asking them for one may create a bucket; sftp or hdfs need them.
        if self.url.partition("://")[0] in _FLAT:
            return
        self._system.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)


class _RemoteFile(io.RawIOBase):
    """A file of a store, read by ranges, each of them asked for with patience."""

    def __init__(self, storage: RemoteStorage, name: str, size: int) -> None:
        super().__init__()
        self._storage, self._name, self._size, self._position = storage, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._take(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._take(self._size)

    def _take(self, size: int) -> bytes:
        wanted = min(size, max(0, self._size - self._position))
        data = self._storage.read_range(self._name, self._position, wanted) if wanted else b""
        self._position += len(data)
        return data
