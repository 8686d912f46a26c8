"""1 GB to an S3 store and back: through ours, and with boto3's own transfer.

Ours computes the SHA-256 of every byte on both ways, and holds what it reads to it. boto3's is as
it comes, as it is without the CRC-32 it adds to uploads (`bareWithoutCrc`), and with the same
SHA-256 before or after it (`bareWithDigest`): where a processor has no instructions for that, it
takes as long as all else (`sha256Seconds`, of one core). All sign every body, send and read the
same parts with as many threads, in turn, each time in a process of its own. The server is the
end-to-end test's in another process, but without the MD5 it computes, which would take longer than
all that is compared; it shares the machine's cores with the client, as a remote one would not, so
that every second of the processor counts. Objects and files are in memory (/dev/shm) where there
is such a place, so that no disk is measured. `cpuSeconds` are the client's own: they tell the same
on a machine that is busy with other things.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from figures import Figure
from hdgan.core.atomic_file import sha256_file
from hdgan.core.s3_transfer import Parts
from measuring import Memory, in_fresh_process, peak_memory

ROOT = Path(__file__).parents[1]
SIZE = 10**9
BUCKET = "bench"
REPEATS = 3
SECONDS = 300.0

Transfer = Callable[[str, Path, str], "Run"]
"""Endpoint, folder, digest of the file `source` in it."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One transfer."""

    memory: Memory
    cpu_seconds: float
    """Of all threads of the process."""

    @property
    def seconds(self) -> float:
        return self.memory.seconds

    def to_json(self) -> dict[str, object]:
        return {**self.memory.to_json(), "cpuSeconds": round(self.cpu_seconds, 2)}


def measured_run(work: Callable[[], object]) -> Run:
    """Memory and processor of this process while it does the work."""
    before = time.process_time()
    memory = peak_memory(work)
    return Run(memory, time.process_time() - before)


def store_transfer() -> tuple[list[Figure], dict[str, object]]:
    """MB/s of both ways, and most memory of the processes."""
    shared = Path("/dev/shm")
    place = shared if os.access(shared, os.W_OK) else None
    ways: dict[str, dict[str, Transfer]] = {
        "up": {
            "ours": ours_up,
            "bare": bare_up,
            "bareWithoutCrc": bare_up_without_crc,
            "bareWithDigest": bare_up_with_digest,
        },
        "down": {"ours": ours_down, "bare": bare_down, "bareWithDigest": bare_down_with_digest},
    }
    figures: list[Figure] = []
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="hdgan-bench-", dir=place) as name:
        folder = Path(name)
        digest = _write_random(folder / "source")
        began = time.perf_counter()
        sha256_file(folder / "source")
        found["sha256Seconds"] = round(time.perf_counter() - began, 2)
        with _server(folder / "objects") as endpoint:
            for way, runs in ways.items():
                measured = _in_turn(runs, endpoint, folder, digest)
                found[way] = {
                    side: [one.to_json() for one in all_] for side, all_ in measured.items()
                }
                ours, bare = measured["ours"], measured["bare"]
                digests = measured["bareWithDigest"]
                figures.append(_figure(f"store, 1 GB {way}, against boto3", ours, bare))
                figures.append(
                    _figure(f"store, 1 GB {way}, against boto3 + SHA-256", ours, digests)
                )
    parts = Parts()
    return figures, {
        "bytes": SIZE,
        "partBytes": parts.part_bytes,
        "threads": parts.at_once,
        "boundOfPartsInMemoryBytes": parts.part_bytes * (parts.at_once + 2),
        "inMemoryFiles": place is not None,
        **found,
    }


def _figure(name: str, ours: list[Run], bare: list[Run]) -> Figure:
    """Medians. The ratio is of pairs that ran one after the other: the machine's pace changes."""
    value, baseline = (
        SIZE / 1e6 / statistics.median(one.seconds for one in side) for side in (ours, bare)
    )
    pairs = zip(ours, bare, strict=True)
    ratio = statistics.median(plain.seconds / own.seconds for own, plain in pairs)
    return Figure(name, value, "MB/s", baseline, ratio, max(one.memory.peak for one in ours) / 1e6)


def _in_turn(
    runs: dict[str, Transfer], endpoint: str, folder: Path, digest: str
) -> dict[str, list[Run]]:
    """Seconds and memory of each, one after the other; a first round warms up."""
    measured: dict[str, list[Run]] = {side: [] for side in runs}
    for turn in range(REPEATS + 1):
        for side, run in runs.items():
            memory = in_fresh_process(run, endpoint, folder, digest, seconds=SECONDS)
            if memory is None:
                raise RuntimeError(f"{side} did not finish")
            if turn:
                measured[side].append(memory)
    return measured


def ours_up(endpoint: str, folder: Path, digest: str) -> Run:
    """Through the store; the digest is the one it found on the way."""
    store = _store(endpoint)
    found: list[str] = []
    run = measured_run(lambda: found.append(store.put_from("ours", folder / "source").sha256))
    store.close()
    if found != [digest]:
        raise RuntimeError("what was sent has another digest")
    return run


def ours_down(endpoint: str, folder: Path, digest: str) -> Run:
    """Through the store, held to the digest."""
    store = _store(endpoint)
    run = measured_run(lambda: store.get_to("ours", folder / "ours", sha256=digest))
    store.close()
    return run


def bare_up_without_crc(endpoint: str, folder: Path, digest: str) -> Run:
    """boto3's managed upload, told to leave out what S3 does not demand."""
    os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
    return bare_up(endpoint, folder, digest)


def bare_up(endpoint: str, folder: Path, _: str) -> Run:
    """boto3's managed upload."""
    source = str(folder / "source")
    return _bare_run(
        endpoint,
        lambda client, config: client.upload_file(source, BUCKET, "bare", Config=config),
    )


def bare_down(endpoint: str, folder: Path, _: str) -> Run:
    """boto3's managed download."""
    target = str(folder / "bare")
    return _bare_run(
        endpoint,
        lambda client, config: client.download_file(BUCKET, "bare", target, Config=config),
    )


def bare_up_with_digest(endpoint: str, folder: Path, digest: str) -> Run:
    """boto3's managed upload, of a file whose digest is computed before."""
    source = folder / "source"

    def work(client: Any, config: Any) -> None:
        if sha256_file(source) != digest:
            raise RuntimeError("what was sent has another digest")
        client.upload_file(str(source), BUCKET, "bare", Config=config)

    return _bare_run(endpoint, work)


def bare_down_with_digest(endpoint: str, folder: Path, digest: str) -> Run:
    """boto3's managed download, held to the digest afterwards."""
    target = folder / "bare"

    def work(client: Any, config: Any) -> None:
        client.download_file(BUCKET, "bare", str(target), Config=config)
        if sha256_file(target) != digest:
            raise RuntimeError("what came has another digest")

    return _bare_run(endpoint, work)


def _bare_run(endpoint: str, work: Callable[[Any, Any], object]) -> Run:
    """`work(client, transfer configuration)`, measured."""
    client, config = _bare(endpoint)
    run = measured_run(lambda: work(client, config))
    client.close()
    return run


def _store(endpoint: str) -> Any:
    from hdgan.core.store_s3 import S3Connection, S3Store

    _credentials()
    store = S3Store(BUCKET, connection=S3Connection(endpoint=endpoint))
    store.head("nothing")  # boto3's client is made and connected before anything is timed
    return store


def _bare(endpoint: str) -> tuple[Any, Any]:
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    _credentials()
    parts = Parts()
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            max_pool_connections=32,
        ),
    )
    client.list_objects_v2(Bucket=BUCKET)
    return client, TransferConfig(
        multipart_threshold=parts.part_bytes,
        multipart_chunksize=parts.part_bytes,
        max_concurrency=parts.at_once,
    )


def _credentials() -> None:
    os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench")
    os.environ.pop("AWS_PROFILE", None)


def _write_random(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(SIZE // 10**6):
            chunk = os.urandom(10**6)
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    """The server's URL, for as long as the block runs."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(sending, folder), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{receiving.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(sending: Connection, folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from e2e import object_server

    class Hurried(object_server.Handler):
        """Names what it keeps by chance: an MD5 takes longer than everything else."""

        @contextlib.contextmanager
        def _received(self, folder: Path, body: object_server.Body) -> Iterator[tuple[Path, str]]:
            part = folder / f"{uuid.uuid4().hex}.part"
            try:
                with part.open("wb", buffering=0) as file:
                    while chunk := body.payload.read(object_server.CHUNK):
                        file.write(chunk)
                body.drain()
                yield part, uuid.uuid4().hex
            finally:
                part.unlink(missing_ok=True)

    Hurried.buckets = object_server.Buckets(folder)
    Hurried.buckets.make(BUCKET)
    made = object_server.Server(("127.0.0.1", 0), Hurried)
    sending.send(made.server_port)
    made.serve_forever()
