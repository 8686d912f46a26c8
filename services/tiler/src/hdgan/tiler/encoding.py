"""Tiles as files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

from PIL import Image


@dataclass(frozen=True)
class Encoding:
    """How tiles are written; the same bytes for the same pixels."""

    format: Literal["png", "jpeg"]
    quality: int = 95
    """Of JPEG, 95..100."""

    @property
    def suffix(self) -> str:
        """Ending of a tile's file name."""
        return ".png" if self.format == "png" else ".jpg"

    def encode(self, image: Image.Image) -> bytes:
        """An RGB picture as a file. JPEG is without chroma subsampling (4:4:4)."""
        buffer = io.BytesIO()
        if self.format == "png":
            image.save(buffer, format="PNG", compress_level=6)
        else:
            image.save(buffer, format="JPEG", quality=self.quality, subsampling=0)
        return buffer.getvalue()
