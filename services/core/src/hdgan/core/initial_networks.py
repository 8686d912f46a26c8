"""The networks a GAN is fine-tuned from: identified by what they contain, not by where they lie."""

from __future__ import annotations

from hdgan.core.canonical import canonical_digest
from hdgan.core.errors import KeyMissing, RequestError
from hdgan.core.store import open_store

FILES = ("architecture.json", "discriminator.safetensors", "generator.safetensors")


def networks_digest(uri: str) -> str:
    """Digest of the three files in the folder or prefix `uri`. RequestError if one is missing."""
    store = open_store(uri)
    found = []
    for name in FILES:
        try:
            found.append([name, store.sha256(name)])
        except KeyMissing:
            raise RequestError(
                f"ganTrainer.initFrom: {store.url(name)} does not exist; the folder must hold "
                f"{', '.join(FILES)}"
            ) from None
    return canonical_digest(found)
