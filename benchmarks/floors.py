"""The least that this machine could spend on a step: the same bytes read, hashed and written, the same matrix products."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
import xxhash
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

MATMUL_SIDE = 1536
MATMUL_TRIES = 3
READ_SIZE = 1 << 20


def write_files(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write each file once, without making it durable."""
    for name, data in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def copy_through_hash(folder: Path, *, inputs: Sequence[Path], output: bytes) -> None:
    """Read and hash the input files, then hash and write the output in one sequential write and make it durable."""
    for path in inputs:
        xxhash.xxh3_64_intdigest(path.read_bytes())
    xxhash.xxh3_64_intdigest(output)
    with (folder / "output").open("wb", buffering=0) as file:
        file.write(output)
        os.fsync(file.fileno())


def hash_files(paths: Sequence[Path]) -> None:
    """Read every byte once, in order, and hash it once."""
    for path in paths:
        digest = xxhash.xxh3_64()
        with path.open("rb", buffering=0) as file:
            while piece := file.read(READ_SIZE):
                digest.update(piece)


def read_spans(spans: Sequence[tuple[int, int, int]]) -> None:
    """Read `(descriptor, size, offset)` spans in the order given, and hash each."""
    for descriptor, size, offset in spans:
        xxhash.xxh3_64_intdigest(os.pread(descriptor, size, offset))


def decode_and_resize(jpegs: Sequence[bytes], size: int) -> None:
    """Decode JPEGs by libjpeg-turbo and resize each whole picture, in one plain loop."""
    from torchvision.io import ImageReadMode, decode_jpeg

    for data in jpegs:
        pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
        torch.nn.functional.interpolate(pixels[None], size=(size, size), mode="bicubic", antialias=True)


def matmul_flops_per_s() -> float:
    """The best of a few large fp32 products with torch's present number of threads."""
    left, right = torch.rand(2, MATMUL_SIDE, MATMUL_SIDE).unbind()
    seconds = []
    for _ in range(MATMUL_TRIES):
        started = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - started)
    return 2.0 * MATMUL_SIDE**3 / min(seconds)


def count_flops(work: Callable[[], object]) -> int:
    """Count the floating-point operations of all matrix products and convolutions in some work, its backward pass included."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused kernels hide their products from the counter
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            work()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return int(counter.get_total_flops())
