"""Where a dataset lies: a local folder or any fsspec address, with the few operations that exactly-once writing needs.

Names are relative to the storage, with `/` between folders. A writer uses a *temporary* name that no other attempt shares,
and makes the finished bytes visible in one step; nobody ever reads a half-written file.
"""

from __future__ import annotations

import io
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, cast

import xxhash

from shards.errors import DatasetError, MissingLibraryError, OstrakaError, StoreError
from shards.patience import Patience

COPY_BYTES = 1 << 22
_PUTS = 5  # attempts to write a small file while other jobs sweep
_BUFFER_BYTES = 1 << 16  # pictures are larger and go past it: copying them costs more than a write
_PART_BYTES = 1 << 24  # of a multipart upload: what a writer holds in memory; 10,000 parts are 156 GiB
_RANGE_BYTES = 1 << 24  # of one request: what takes longer than its time limit is asked for again
_FLAT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss"})  # protocols of object stores

T = TypeVar("T")


class Storage(ABC):
    """One dataset's place. Pickles to its address; opens connections lazily in each process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """Whether names are files that the operating system can open."""

    @abstractmethod
    def path(self, name: str) -> str:
        """The full path or address of a name."""

    @abstractmethod
    def open_read(self, name: str) -> BinaryIO:
        """Open for reading. Raises `FileNotFoundError`."""

    @abstractmethod
    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Read up to `size` bytes from `offset`; fewer where the file ends before. Raises `FileNotFoundError`."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether a file of this name is visible."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Size in bytes. Raises `FileNotFoundError`."""

    @abstractmethod
    def _entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Base names of the files and of the folders directly in a folder; two empty lists where it does not exist."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write a small file unless the name is taken. The first caller wins and gets True; all others get False."""

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Write a small file in one step, over whatever was there."""

    @abstractmethod
    def open_write(self, temporary: str) -> BinaryIO:
        """Open a temporary name for writing."""

    @abstractmethod
    def publish(self, temporary: str, name: str, *, existing: Literal["keep", "replace"] = "keep") -> bool:
        """Make the bytes of a closed temporary durable and visible under `name`.

        Returns:
            True, and the temporary is gone; or False where `name` is taken and kept, and the temporary is still there.

        Raises:
            FileNotFoundError: the temporary is gone (swept after another attempt had finished the same work).
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file if it is there."""

    def abandon_uploads(self, *, older_than_s: float) -> int:
        """End the uploads that killed attempts have begun: they show no file, but object stores keep them, at a price.

        Args:
            older_than_s: leave younger ones alone, which a live attempt may be making.

        Returns:
            How many were ended.
        """
        return 0

    def read(self, name: str) -> bytes:
        """Read a whole file. Raises `FileNotFoundError`."""
        with self.open_read(name) as handle:
            return handle.read()

    def rewrite(self, name: str, write: Callable[[BinaryIO], None]) -> None:
        """Write a file of any size in one step, over whatever was there.

        Args:
            name: of the file.
            write: writes its bytes; called again where an identical job has swept the temporary meanwhile.
        """
        for attempt in range(1, _PUTS + 1):
            temporary = temporary_name(name)
            with self.open_write(temporary) as handle:
                write(handle)
            try:
                self.publish(temporary, name, existing="replace")
                return
            except FileNotFoundError:
                if attempt == _PUTS:
                    raise

    def list(self, folder: str) -> Sequence[str]:
        """Sorted names of the files directly in a folder, temporaries left out: `list("commits")` → `["commits/1f.json", …]`."""
        return [f"{folder}/{base}" for base in sorted(self._entries(folder)[0]) if not is_temporary(base)]

    def folders(self, folder: str) -> Sequence[str]:
        """Sorted names of the folders directly in a folder."""
        return [f"{folder}/{base}" for base in sorted(self._entries(folder)[1])]

    def temporaries(self, folder: str) -> Sequence[str]:
        """Sorted names of the temporaries that live or killed attempts have in a folder."""
        return [
            f"{folder}/{base}" if folder else base for base in sorted(self._entries(folder)[0]) if is_temporary(base)
        ]

    def checksum(self, name: str) -> str:
        """The xxh3-64 of a file in 16 hex digits, read in pieces. Raises `FileNotFoundError`."""
        state = xxhash.xxh3_64()
        with self.open_read(name) as handle:
            while piece := handle.read(COPY_BYTES):
                state.update(piece)
        return state.hexdigest()

    def ensure_writable(self) -> None:
        """Find out before the work starts that its result cannot be stored.

        Raises:
            DatasetError: nothing can be written here.
        """
        probe = temporary_name("write-probe")
        try:
            with self.open_write(probe) as handle:
                handle.write(b"\0")
            self.remove(probe)
        except OstrakaError:
            raise
        except Exception as problem:  # libraries of stores raise what they like, such as boto's own missing credentials
            why = (problem.strerror if isinstance(problem, OSError) else None) or problem
            raise DatasetError(
                f"cannot write to {self.url} ({why}); choose another `output`, or mend its permissions or your credentials"
            ) from problem


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


def temporary_name(name: str) -> str:
    """A name beside `name` that no other attempt will ever choose; `list` does not show it."""
    folder, _, base = name.rpartition("/")
    hidden = f".{base}.{uuid.uuid4().hex[:16]}.tmp"
    return f"{folder}/{hidden}" if folder else hidden


def is_temporary(name: str) -> bool:
    """Whether a name was made by `temporary_name`."""
    base = name.rpartition("/")[2]
    return base.startswith(".") and base.endswith(".tmp")


class LocalStorage(Storage):
    """A folder of this machine or of a shared file system."""

    def __init__(self, root: str) -> None:
        super().__init__(os.path.abspath(os.path.expanduser(root)))

    @property
    def is_local(self) -> bool:
        return True

    def path(self, name: str) -> str:
        return os.path.join(self.url, name)

    def open_read(self, name: str) -> BinaryIO:
        return open(self.path(name), "rb")

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        with open(self.path(name), "rb", buffering=0) as handle:
            return os.pread(handle.fileno(), size, offset)

    def exists(self, name: str) -> bool:
        return os.path.isfile(self.path(name))

    def size(self, name: str) -> int:
        return os.path.getsize(self.path(name))

    def _entries(self, folder: str) -> tuple[list[str], list[str]]:
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(self.path(folder)) as entries:
                for entry in entries:
                    (folders if entry.is_dir() else files).append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        return files, folders

    def create(self, name: str, data: bytes) -> bool:
        return self._put(name, data, existing="keep")

    def replace(self, name: str, data: bytes) -> None:
        self._put(name, data, existing="replace")

    def _put(self, name: str, data: bytes, *, existing: Literal["keep", "replace"]) -> bool:
        """Write a small file by way of a temporary; True where it is now in its place."""
        for attempt in range(1, _PUTS + 1):
            temporary = temporary_name(name)
            with self.open_write(temporary) as handle:
                handle.write(data)
            try:
                if self.publish(temporary, name, existing=existing):
                    return True
                self.remove(temporary)
                return False
            except FileNotFoundError:  # an identical job has merged in this moment, and swept the temporary
                if attempt == _PUTS:
                    raise
        raise AssertionError(f"{name}: no attempt was made")

    def open_write(self, temporary: str) -> BinaryIO:
        path = self.path(temporary)
        try:
            return open(path, "wb", buffering=_BUFFER_BYTES)
        except FileNotFoundError:
            self._make_folder(os.path.dirname(path))
            return open(path, "wb", buffering=_BUFFER_BYTES)

    def publish(self, temporary: str, name: str, *, existing: Literal["keep", "replace"] = "keep") -> bool:
        source, target = self.path(temporary), self.path(name)
        _sync(source)  # the bytes must be on disk before their name is
        if existing == "replace":
            os.replace(source, target)
        else:
            try:
                os.link(source, target)
            except FileExistsError:
                return False
            except FileNotFoundError:
                raise
            except OSError:
                # Some shared file systems have no hard links. Looking first and renaming then leaves a gap in which two
                # attempts may both win; the bytes of a unit do not depend on the attempt, so the second one changes nothing.
                if os.path.exists(target):
                    return False
                os.replace(source, target)
            else:
                os.unlink(source)
        _sync(os.path.dirname(target))
        return True

    def remove(self, name: str) -> None:
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            return

    def _make_folder(self, folder: str) -> None:
        if os.path.isdir(folder):
            return
        parent = os.path.dirname(folder)
        self._make_folder(parent)
        try:
            os.mkdir(folder)
        except FileExistsError:
            return  # another worker was quicker
        _sync(parent)


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


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
