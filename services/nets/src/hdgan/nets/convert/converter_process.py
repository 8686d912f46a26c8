"""The process that converts: limited in memory, time and files, and told nothing it could leak.

    python -m hdgan.nets.convert.converter_process IN OUT

Prints one line of JSON: {"architecture": ..., "sha256": ...} or {"error": ...}.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from pathlib import Path

from hdgan.core.errors import RequestError

# What Python and torch themselves need, before any file is read.
BASE_BYTES = 6 << 30
# The file, its tensors, their copies and what is written of them, with room to spare.
BYTES_PER_BYTE = 8
CPU_SECONDS = 600
MAX_OPEN_FILES = 256
TOO_MUCH = "it asks for more memory than a network file of its size needs"


def limit(size: int) -> None:
    """Limit this process to what converting a file of `size` bytes takes."""
    for what, most in (
        (resource.RLIMIT_AS, BASE_BYTES + BYTES_PER_BYTE * size),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 2 * size + (16 << 20)),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(
            what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )


def convert(source: Path, out: Path) -> dict[str, object]:
    """Read the pickle `source`, write our files into the folder `out`.

    Returns the architecture, and the digest of the bytes that were read.
    """
    # After the limits are set: importing torch takes memory, too.
    import torch
    from safetensors.torch import save

    from hdgan.nets import checkpoint
    from hdgan.nets.convert.stylegan2_names import (
        architecture_of,
        discriminator_weights,
        generator_weights,
    )
    from hdgan.nets.convert.stylegan2_pickle import read_pickle

    torch.set_num_threads(1)
    data = source.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    networks = read_pickle(data)
    arch = architecture_of(networks["G_ema"], networks["D"])
    written = {checkpoint.GENERATOR: generator_weights(networks["G_ema"], arch)}
    if "G" in networks:
        written[checkpoint.GENERATOR_RAW] = generator_weights(networks["G"], arch)
    written[checkpoint.DISCRIMINATOR] = discriminator_weights(networks["D"], arch)
    for name, tensors in written.items():
        (out / name).write_bytes(save({n: t.contiguous() for n, t in tensors.items()}))
    (out / checkpoint.ARCHITECTURE).write_bytes(arch.to_json())
    return {"architecture": json.loads(arch.to_json()), "sha256": digest}


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        limit(source.stat().st_size)
        answer = convert(source, out)
    except RequestError as error:
        answer = {"error": str(error)}
    except RecursionError:
        answer = {"error": "it is nested too deeply"}
    except MemoryError:
        answer = {"error": TOO_MUCH}
    except RuntimeError as error:  # torch has no other for memory it does not get
        if "allocate" not in str(error):
            raise
        answer = {"error": TOO_MUCH}
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        words = f"{type(error).__name__}: {str(error)[:200]}"
        answer = {"error": f"it is not built as such networks are ({words})"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
