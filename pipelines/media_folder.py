"""Where the raw media files of a source lie, and the refusal to read anything outside of it."""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from shards.errors import InputError
from shards.media import MediaProblem
from shards.stores import open_storage

_URL = re.compile(r"(https?|ftp)://", re.IGNORECASE)
NOT_FETCHED = (
    "URLs are not fetched; download the pictures first (img2dataset's tars are read by `python -m jobs index`)"
)
_PROBES = 1000  # files that are looked up before a run: of a corpus with one in a hundred left, some will be found
_FOLDERS_REMEMBERED = 4096
_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe that nobody writes to would be waited for


def is_remote(place: str) -> bool:
    """Whether a place that an annotation file names is a URL and no file."""
    return _URL.match(place) is not None


@dataclass(frozen=True, slots=True)
class MediaFolder:
    """A local folder, or any URL that `shards.stores` opens.

    Names come out of annotation files that anybody may have written, so one that leads out of the folder, by `..`, as an
    absolute path or through a link, is refused; `follow_links` lets links lead anywhere.
    """

    root: str
    follow_links: bool = False

    @property
    def is_local(self) -> bool:
        return "://" not in self.root

    def read(self, file: str) -> bytes:
        """Read one file. Raises `MediaProblem` when it is not there, cannot be read or lies outside."""
        try:
            return self._read_remote(file) if not self.is_local else self._read_local(file)
        except FileNotFoundError as error:
            if self.is_local and (other := self._spelt_otherwise(file)) is not None:
                return self.read(other)
            if is_remote(file):
                raise MediaProblem("remote_media", f"{file}: {NOT_FETCHED}") from error
            raise MediaProblem("missing_media", f"{file} is not in the media folder") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
            raise MediaProblem("missing_media", f"{file} cannot be read: {error}") from error

    def size(self, file: str) -> int | None:
        """Size of one local file, None where it is not there or the folder is remote."""
        if not self.is_local:
            return None
        size = self._size(file)
        if size is None and (other := self._spelt_otherwise(file)) is not None:
            return self._size(other)
        return size

    def first_there(self, names: Iterable[str]) -> str:
        """The first of these names that is there; where none is, and in a remote folder, the first of all."""
        first, *others = names
        if not self.is_local:
            return first
        return next((name for name in (first, *others) if self.size(name) is not None), first)

    def check(self) -> None:
        """Find a folder that is missing or empty, before anything is read. Raises `InputError`; remote ones are not looked at."""
        if not self.is_local:
            return
        root = Path(self.root)
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "does not exist"
            raise InputError(f"source.media: {root.absolute()} {what}; point source.media at the folder of media files")
        if next(root.iterdir(), None) is None:
            raise InputError(f"source.media: {root.absolute()} is empty; unpack the media files there")

    def _size(self, file: str) -> int | None:
        try:
            return os.stat(self._inside(file)).st_size
        except (OSError, ValueError, MediaProblem):
            return None

    def _spelt_otherwise(self, file: str) -> str | None:
        """The spelling under which a file is there that is not there by its name as the annotations have it.

        Tables from Windows part folders by backslashes, and archives from macOS write `ä` as two characters where tables have one.
        """
        if file.isascii() and "\\" not in file:
            return None
        slashed = file.replace("\\", "/")
        spellings = {slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))} - {file}
        return next((name for name in sorted(spellings) if self._size(name) is not None), None)

    def _read_remote(self, file: str) -> bytes:
        if ".." in PurePosixPath(file).parts or file.startswith("/") or "://" in file:
            raise MediaProblem("outside_media", f"{file} leads out of {self.root}")
        return open_storage(self.root).read(file)

    def _read_local(self, file: str) -> bytes:
        path = self._below(file)
        try:
            handle = os.open(path, _READING if self.follow_links else _READING | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.ELOOP or self.follow_links:
                raise
            handle = os.open(self._inside(file), _READING)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise MediaProblem("not_media", f"{file} is a folder, a pipe or a device, and no file")
            data = os.read(handle, status.st_size + 1)
            if len(data) == status.st_size:  # the common case: one byte more was asked for and is not there
                return data
            pieces = [data]
            while piece := os.read(handle, 1 << 24):
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            os.close(handle)

    def _inside(self, file: str) -> str:
        """The path of a file that lies inside the folder, links followed. Raises `MediaProblem` for any other."""
        path = self._below(file)
        if not self.follow_links and os.path.islink(path) and not _lies_in(os.path.realpath(path), self._real_root()):
            raise _leads_out(file)
        return path

    def _below(self, file: str) -> str:
        """The path of a name whose folder lies inside; the file itself may still be a link."""
        root = self.root if self.root.startswith(os.sep) else os.path.abspath(self.root)
        folder, _, name = file.rpartition("/")
        if ".." in file or file.startswith("/") or name[:1] in ("", "."):
            path = os.path.normpath(os.path.join(root, file))
            if not _lies_in(path, os.path.normpath(root)):
                raise MediaProblem("outside_media", f"{file} lies outside of the media folder {self.root}")
            folder, name = os.path.split(os.path.relpath(path, root))
        start = _folder(root, folder, self.follow_links)
        if start is None:
            raise _leads_out(file)
        return start + name

    def _real_root(self) -> str:
        return os.path.realpath(self.root)


class NamedFiles:
    """A sample, spread evenly over all the names that a source finds, to see that they are in its folder at all."""

    def __init__(self, folder: MediaFolder) -> None:
        self._folder = folder
        self._sample: list[str] = []
        self._stride = 1
        self._seen = 0

    def note(self, file: str) -> None:
        """Take one name; costs next to nothing and never keeps more than a hundred."""
        if self._seen % self._stride == 0:
            self._sample.append(file)
            if len(self._sample) > 2 * _PROBES:
                self._sample = self._sample[::2]
                self._stride *= 2
        self._seen += 1

    def check(self, *, annotations: str) -> None:
        """Look the sample up. Raises `InputError` where not one of it is there; remote folders are not looked at."""
        if not self._folder.is_local or not self._sample:
            return
        if any(self._folder.size(file) is not None for file in self._sample):
            return
        if (
            not self._folder.follow_links
            and MediaFolder(self._folder.root, follow_links=True).size(self._sample[0]) is not None
        ):
            raise InputError(
                f"source.media: the files under {Path(self._folder.root).absolute()} are links that lead out of it (such as "
                f"{self._sample[0]}); allow them with source.follow_links=true, or point source.media at what they lead to"
            )
        raise InputError(
            f"source.media: none of {len(self._sample)} media files that {annotations} names is under "
            f"{Path(self._folder.root).absolute()} (looked for {self._sample[0]}); "
            "point source.media at the folder that the names are relative to"
        )


def _leads_out(file: str) -> MediaProblem:
    return MediaProblem(
        "outside_media",
        f"{file} is a link that leads out of the media folder; allow it with source.follow_links=true",
    )


def _lies_in(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)


@lru_cache(_FOLDERS_REMEMBERED)
def _folder(root: str, folder: str, follow_links: bool) -> str | None:
    """What the paths of all files in a folder below the root start with; None where a link leads it out of the root.

    Thousands of pictures share a folder, and following every link of its path each time costs more than reading a small one.
    """
    path = os.path.normpath(os.path.join(root, folder))
    if not follow_links:
        real, real_root = os.path.realpath(path), os.path.realpath(root)
        if real != real_root and not _lies_in(real, real_root):
            return None
    return path.rstrip(os.sep) + os.sep
