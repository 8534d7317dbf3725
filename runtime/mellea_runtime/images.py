"""Images as mellea's messages hold them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mellea.core import CBlock, ImageUrlBlock


def image_blocks(images: Iterable[Any] | None) -> Any:
    """Blocks for URLs, data: URLs among them, and for mellea's own blocks; None for no images."""
    return [_block(image) for image in images or ()] or None


def _block(image: Any) -> Any:
    if not isinstance(image, str):
        return image
    # mellea's own block for a data: URL takes PNG only; what is sent is the URL in any case
    return CBlock(image) if image.startswith("data:") else ImageUrlBlock(image)
