"""The one way pictures from outside are opened: their size is known before they are decoded, and
whatever a damaged file makes the decoder raise is one error."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from hdgan.core.errors import HdganError

# What Pillow raises for damaged or hostile files, its own limits on texts and colour profiles among
# them (ValueError), and what numpy raises for a picture that could not be decoded.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    MemoryError,
    Image.DecompressionBombError,
)

# Pillow only warns of a picture somewhat too large; its size is looked at here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# All texts of a picture together, unpacked; Pillow's own limit is 64 MiB. Ours have some hundred
# bytes.
PngImagePlugin.MAX_TEXT_MEMORY = 8 << 20


class PictureError(ValueError):
    """The bytes are no picture that is read here; the message says why."""


@contextmanager
def open_picture(
    data: bytes,
    *,
    formats: Sequence[str] = ("PNG",),
    max_pixels: int,
    size: tuple[int, int] | None = None,
) -> Iterator[Image.Image]:
    """The picture in `data`, opened but not decoded; decode it in the block.

    Args:
        formats: which of Pillow's formats may be tried.
        max_pixels: most pixels that are decoded.
        size: (width, height) it must have.

    Raises PictureError, also for what decoding in the block raises.
    """
    try:
        with Image.open(io.BytesIO(data), formats=list(formats)) as picture:
            width, height = picture.size
            if size is not None and (width, height) != size:
                raise PictureError(f"it is {width} x {height} px, not {size[0]} x {size[1]}")
            if width * height > max_pixels:
                raise PictureError(
                    f"its {width} x {height} pixels are too many: at most {max_pixels} are read"
                )
            yield picture
    except (PictureError, HdganError):
        raise
    except UnidentifiedImageError:
        # Pillow's own message is the address of our buffer.
        raise PictureError(f"it is no {' or '.join(formats)} that can be decoded") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow looks before we can.
        raise PictureError(f"its pixels are too many: at most {max_pixels} are read") from None
    except DAMAGE as error:
        words = next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
        raise PictureError(f"it is damaged ({words})") from None
