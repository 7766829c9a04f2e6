"""Region features as VLP publishes them: HDF5 by the last three characters of the picture's name, or `.npy` per picture.

Both layouts, with their one file of all boxes, come out as the same `.npz` (`shards.regions`). HDF5 files hold thousands of
pictures each, so a worker keeps a few of them open instead of opening three for every picture.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.media_folder import MediaFolder
from shards.errors import InputError, MissingLibraryError
from shards.media import MediaProblem
from shards.regions import regions_bytes

Array = npt.NDArray[Any]

_PART = re.compile(r".*_(?P<what>feat|cls)(?P<tail>.{3})\.(h5|hdf5)")
_ENDINGS = (".h5", ".hdf5")
_OPEN_FILES = 12  # of one worker
_LARGEST = 1 << 28  # bytes of one array; a hundred regions of 2048 features take 0.8 MB


@dataclass(slots=True)
class RegionFiles:
    """Finds the arrays of a picture by its name, and reads them.

    Attributes:
        root: the folder of the feature files.
        boxes: the file of all boxes, where it is not under `root`.
        follow_links: allow links under `root` that lead out of it.
    """

    root: str
    boxes: str | None = None
    follow_links: bool = False
    _features: dict[str, str] = field(default_factory=dict)  # last three characters of a name → file
    _classes: dict[str, str] = field(default_factory=dict)
    _boxes: str | None = None  # under the root
    _folders: frozenset[str] = frozenset()
    _opened: OrderedDict[str, Any] = field(default_factory=OrderedDict)

    def find(self) -> None:
        """Look at what lies in the folder; the driver does so once.

        Raises:
            InputError: there are no features, no boxes or several files that could be them, or a part lies there twice.
        """
        if not Path(self.root).is_dir():
            raise InputError(
                f"source.media: {Path(self.root).absolute()} is no folder here; point it at the region features "
                "(they are read in pieces, so they must lie on a disk)"
            )
        self._features, self._classes, others = {}, {}, list[str]()
        for path in self._files():
            found = _PART.fullmatch(Path(path).name)
            if found is None:
                others.append(path)
                continue
            parts = self._features if found["what"] == "feat" else self._classes
            if found["tail"] in parts:
                raise InputError(
                    f"source.media: {parts[found['tail']]} and {path} under {self.root} are the same part of two sets of "
                    "features; point source.media at the folder of one of them"
                )
            parts[found["tail"]] = path
        self._folders = frozenset(entry.name for entry in os.scandir(self.root) if entry.is_dir())
        self._boxes = None if self.boxes is not None else self._one_of(others)

    def of(self, name: str) -> Mapping[str, Any]:
        """Where the arrays of a picture are, as JSON values.

        Args:
            name: the picture's file name without its ending.

        Raises:
            MediaProblem: the name leads elsewhere, or no file would hold it.
        """
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            raise MediaProblem("outside_media", f"{name!r} is no name of a picture")
        if self._features:
            tail = name[-3:]
            if tail not in self._features or tail not in self._classes:
                raise MediaProblem("missing_media", f"there is no file of features or of classes for names in {tail!r}")
            files = {"features": self._features[tail], "classes": self._classes[tail]}
        else:
            part = name.split("_")[1] if name.count("_") else ""  # COCO_train2014_… may lie in train2014
            folder = f"{part}/" if part in self._folders else ""
            files = {"features": f"{folder}{name}.npy", "classes": f"{folder}{name}_cls_prob.npy"}
        return {"name": name, **files, **({} if self._boxes is None else {"boxes": self._boxes})}

    def load(self, at: Mapping[str, Any]) -> bytes:
        """Read the arrays of one picture and pack them. Raises `MediaProblem` where one is missing or no such array."""
        name = at["name"]
        return regions_bytes(
            features=self._array(at["features"], name),
            classes=self._array(at["classes"], name),
            boxes=self._array(at["boxes"], name) if "boxes" in at else self._stored(str(self.boxes), name),
        )

    def _files(self) -> Iterator[str]:
        """Every HDF5 file under the root, sorted, relative to it."""
        for folder, inner, names in os.walk(self.root, followlinks=self.follow_links):
            inner.sort()
            for name in sorted(names):
                if name.endswith(_ENDINGS):
                    yield os.path.relpath(os.path.join(folder, name), self.root)

    def _one_of(self, others: list[str]) -> str:
        if len(others) == 1:
            return others[0]
        there = (
            f"{len(others)} files could hold the boxes: {', '.join(others[:3])}" if others else "no file holds boxes"
        )
        raise InputError(f"source.boxes: under {self.root} {there}; name the HDF5 file of all boxes with source.boxes")

    def _array(self, file: str, name: str) -> Array:
        if file.endswith(".npy"):
            return _npy(MediaFolder(self.root, follow_links=self.follow_links).read(file), file)
        return self._stored(os.path.join(self.root, file), name)

    def _stored(self, path: str, name: str) -> Array:
        """One array of an HDF5 file; only what lies in that very file."""
        h5py = _h5py()
        try:
            file = self._open(path)
            # HDF5 can point into other files in three ways; a picture's name must not lead there.
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise MediaProblem("missing_media", f"{Path(path).name} holds no {name!r} of its own")
            found = file[name]
            if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
                raise MediaProblem("outside_media", f"{name!r} of {Path(path).name} is no array of that file")
            if found.nbytes > _LARGEST:
                raise MediaProblem("decompression_bomb", f"{name!r} of {Path(path).name} has {found.nbytes:,} bytes")
            return np.asarray(found[()])
        except FileNotFoundError as problem:
            raise MediaProblem("missing_media", f"{Path(path).name} is not there") from problem
        except KeyError as problem:
            raise MediaProblem("missing_media", f"{Path(path).name} holds no {name!r}") from problem
        except (OSError, RuntimeError) as problem:  # how h5py says that a file is cut, damaged or none of its own
            raise MediaProblem("truncated_media", f"{Path(path).name}: {problem}") from problem

    def _open(self, path: str) -> Any:
        if path in self._opened:
            self._opened.move_to_end(path)
            return self._opened[path]
        # Each array is read once: a cache of its pieces would only grow. Locks fail on many shared disks and protect nothing here.
        file = _h5py().File(path, "r", rdcc_nbytes=0, locking=False)
        self._opened[path] = file
        if len(self._opened) > _OPEN_FILES:
            self._opened.popitem(last=False)[1].close()
        return file


def _npy(data: bytes, file: str) -> Array:
    try:
        array: Array = np.lib.format.read_array(BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as problem:
        raise MediaProblem("truncated_media", f"{file} is no whole .npy of numbers ({problem})") from problem
    return array


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as problem:
        raise MissingLibraryError("region features in HDF5 need h5py: install ostraka[regions]") from problem
    return h5py
