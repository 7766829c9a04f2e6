"""All captions of a dataset in an index of faiss, for searches that need not look at every one of them.

The index sorts captions into cells around centres; a search looks into the few cells whose centres are nearest. What it finds is
only ever a list of candidates: they come back with their exact embeddings, to be compared as all others are. The index lies beside
the embeddings it was made of, is made once, and is mapped, not read, where the dataset is a local folder.

Source: inverted files, Jégou et al., 2011; faiss, Douze et al., 2024.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from concepts.caption_column import CAPTION_EMBEDDING, CaptionBlock, Halves, captions_with_pictures
from concepts.shortlist import unit_halves
from shards.config import canonical_json, digest
from shards.errors import DatasetError, MissingLibraryError
from shards.reader import Dataset
from shards.sidecar import sidecar_folder
from shards.storage import Storage, temporary_name

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = 1
CARD_FILE, INDEX_FILE, CAPTIONS_FILE = "index.json", "captions.faiss", "captions.arrow"
SEED = 1
ROUNDS = 10  # of k-means
LEARNED_FROM, FEWEST = 64, 39  # captions per cell that its centre is learned from, and fewer than which faiss warns of


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCard:
    """What an index was made of and by."""

    dataset: str  # digest
    captions: str  # digest8 of their embeddings
    pictures: str  # digest8 of those of the pictures
    library: str = ""  # faiss and its version; another version may find other candidates
    cells: int = 0
    count: int = 0  # captions

    @property
    def folder(self) -> str:
        """Where it lies in the dataset: by what it is made of."""
        made_of = digest({"schema": SCHEMA, "dataset": self.dataset, "pictures": self.pictures})[:8]
        return f"{sidecar_folder(CAPTION_EMBEDDING, self.captions)}/search-{made_of}"


def find_index(storage: Storage, *, dataset: str, captions: str, pictures: str) -> IndexCard | None:
    """The card of a finished index; None where it has to be made.

    Args:
        storage: the dataset's.
        dataset: its digest.
        captions: digest8 of the embeddings of captions.
        pictures: digest8 of those of pictures.

    Raises:
        DatasetError: the card is damaged.
    """
    wanted = IndexCard(dataset=dataset, captions=captions, pictures=pictures)
    try:
        return IndexCard(**json.loads(storage.read(f"{wanted.folder}/{CARD_FILE}")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as problem:
        raise DatasetError(
            f"{storage.path(wanted.folder)}/{CARD_FILE} is damaged ({problem}); remove the folder and run `negatives` again"
        ) from problem


def build_index(dataset: Dataset, *, captions: str, pictures: str) -> IndexCard:
    """Make the index of a dataset whose captions and pictures are embedded, one shard of them in memory beside the index.

    The same captions give the same index as long as OMP_NUM_THREADS is the same.

    Args:
        dataset: whose captions.
        captions: digest8 of their embeddings.
        pictures: digest8 of those of pictures, which are kept with the captions for the guard.

    Raises:
        MissingLibraryError: faiss is not installed.
        DatasetError: it holds no caption.
    """
    faiss = load_faiss()
    storage, shards = dataset.storage, range(len(dataset.manifest))

    def block(shard: int) -> CaptionBlock:
        return captions_with_pictures(dataset, shard, captions=captions, pictures=pictures)

    counts = [len(block(shard).texts) for shard in shards]
    count = sum(counts)
    if not count:
        raise DatasetError(f"{dataset.path} holds no caption to search among; convert a dataset of captions")
    cells = max(1, min(int(4 * math.sqrt(count)), count // FEWEST))
    step = max(1, count // (LEARNED_FROM * cells))
    starts = np.cumsum([0, *counts]).tolist()
    sample = [unit_halves(block(shard).vectors[-starts[shard] % step :: step]) for shard in shards]
    width = sample[0].shape[1]
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(width), width, cells, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.seed, index.cp.niter, index.cp.max_points_per_centroid = SEED, ROUNDS, 2 * LEARNED_FROM
    index.cp.min_points_per_centroid = 1
    index.train(np.concatenate(sample))
    for shard in shards:
        index.add(unit_halves(block(shard).vectors))
    card = IndexCard(
        dataset=dataset.digest,
        captions=captions,
        pictures=pictures,
        library=f"faiss-{faiss.__version__}",
        cells=cells,
        count=count,
    )
    _publish(storage, f"{card.folder}/{INDEX_FILE}", lambda file: _write_index(faiss, index, file))
    _publish(storage, f"{card.folder}/{CAPTIONS_FILE}", lambda file: _write_captions(file, map(block, shards), width))
    storage.create(f"{card.folder}/{CARD_FILE}", canonical_json(asdict(card)))  # last: with it the index counts as made
    return card


class CaptionIndex:
    """An index that is searched. Pickles as its card; each process maps the files for itself."""

    def __init__(self, dataset: Dataset, card: IndexCard) -> None:
        """Args:
        dataset: that holds the index.
        card: of it.

        Raises:
            MissingLibraryError: faiss is not installed.
            DatasetError: its files are missing or damaged.
        """
        import pyarrow as pa

        faiss = load_faiss()
        self._faiss, self.card = faiss, card
        storage, names = dataset.storage, (f"{card.folder}/{INDEX_FILE}", f"{card.folder}/{CAPTIONS_FILE}")
        try:
            if storage.is_local:
                self._index = faiss.read_index(storage.path(names[0]), faiss.IO_FLAG_MMAP)
                self._source = pa.memory_map(storage.path(names[1]))
            else:
                self._index = faiss.deserialize_index(np.frombuffer(storage.read(names[0]), np.uint8))
                self._source = pa.BufferReader(storage.read(names[1]))
            self._batches = pa.ipc.open_file(self._source)
        except (OSError, RuntimeError, pa.ArrowException) as problem:  # faiss reports all damage as RuntimeError
            raise DatasetError(
                f"{storage.path(card.folder)} is damaged ({_first_line(problem)}); remove it and run `negatives` again"
            ) from problem
        sizes = [self._batches.get_batch(number).num_rows for number in range(self._batches.num_record_batches)]
        self._starts = np.cumsum([0, *sizes])
        if not self._index.ntotal == self._starts[-1] == card.count:
            raise DatasetError(
                f"{storage.path(card.folder)} holds {self._index.ntotal:,} captions, {self._starts[-1]:,} lie beside it and "
                f"{card.count:,} by its card; remove it and run `negatives` again"
            )

    def nearest(self, vectors: Halves, *, count: int, probes: int) -> npt.NDArray[np.int64]:
        """Find candidates.

        Args:
            vectors: (N, D); a row of NaN finds what it may.
            count: per row.
            probes: cells that are looked into.

        Returns:
            (N, count) places of captions in the order of the data; -1 where the cells hold fewer.
        """
        wide = np.nan_to_num(unit_halves(vectors))
        parameters = self._faiss.SearchParametersIVF(nprobe=min(probes, self.card.cells))
        found: npt.NDArray[np.int64] = self._index.search(wide, min(count, self.card.count), params=parameters)[1]
        return found

    def block(self, places: npt.NDArray[np.int64]) -> CaptionBlock:
        """The captions at some places.

        Args:
            places: rising.
        """
        import pyarrow as pa

        pieces = []
        edges = np.searchsorted(places, self._starts)
        for number in np.flatnonzero(np.diff(edges)).tolist():
            mine = places[edges[number] : edges[number + 1]] - self._starts[number]
            pieces.append(self._batches.get_batch(number).take(pa.array(mine)))
        table = pa.Table.from_batches(pieces, schema=self._batches.schema)
        pictures = _vectors(table["picture"])
        return CaptionBlock(
            texts=table["text"].to_pylist(),
            sources=np.asarray(table["source"].to_pylist(), np.object_),
            vectors=_vectors(table["vector"]),
            pictures=pictures,
        )


def load_faiss() -> Any:
    """The library; one sentence where it is not installed."""
    try:
        return import_module("faiss")
    except ImportError as problem:
        raise MissingLibraryError(
            "search=approximate needs faiss; install the extra: ostraka[search], or say search=exact"
        ) from problem


def _publish(storage: Storage, name: str, write: Callable[[BinaryIO], None]) -> None:
    temporary = temporary_name(name)
    with storage.open_write(temporary) as file:
        write(file)
    # Whoever finished an index without its card was cut off: the newer file, made the same way, takes its place.
    storage.publish(temporary, name, existing="replace")


def _write_index(faiss: Any, index: Any, file: BinaryIO) -> None:
    faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def _write_captions(file: BinaryIO, blocks: Iterable[CaptionBlock], width: int) -> None:
    """One batch per shard: text, source, its own and its picture's embedding, all of which can be mapped."""
    import pyarrow as pa

    halves = pa.list_(pa.float16(), width)
    names = {"text": pa.string(), "source": pa.string(), "vector": halves, "picture": halves}
    with pa.ipc.new_file(file, pa.schema(list(names.items()))) as writer:
        for block in blocks:
            pictures = np.full_like(block.vectors, np.nan) if block.pictures is None else block.pictures
            columns = [pa.array(block.texts, pa.string()), pa.array(block.sources.tolist(), pa.string())]
            writer.write_batch(
                pa.record_batch([*columns, _half_lists(block.vectors), _half_lists(pictures)], names=list(names))
            )


def _half_lists(vectors: Halves) -> pa.Array:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def _vectors(column: pa.ChunkedArray) -> Halves:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors: Halves = np.asarray(flat, np.float16).reshape(-1, column.type.list_size)
    return vectors


def _first_line(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0][:200]
