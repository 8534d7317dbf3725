"""Images that go with a prompt.

A URL is handed to the provider as it is and nothing here ever opens it; what the provider may reach is its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agentflow.placeholders import compile_args
from agentflow.types import kind_of
from flow_runtime.errors import ImageInvalid

MAX_URL = 8192
"""Characters of an http(s) URL; a data: URL is as long as its image."""

_DATA = re.compile(r"data:image/[a-z0-9.+-]{1,64};base64,[A-Za-z0-9+/]+={0,2}", re.IGNORECASE)
_WEB = re.compile(r"https?://[^\s/?#\\@]+(?:[/?#][^\s\\]*)?", re.IGNORECASE)


class Images:
    """The images of one prompt, compiled once."""

    def __init__(self, images: tuple[str, ...], names: tuple[str, ...]) -> None:
        self._images = images
        self._args = compile_args(list(images), names)

    def urls(self, values: Mapping[str, Any]) -> list[str]:
        """One URL per image; an input without a value has none. Raises ImageInvalid, PlaceholderFailed."""
        resolved = self._args.resolve(values) if self._images else []
        return [
            _checked(value, image) for image, value in zip(self._images, resolved, strict=True) if value is not None
        ]


def _checked(value: Any, image: str) -> str:
    if not isinstance(value, str):
        raise ImageInvalid(f"the image {image} must be a text with a URL, but it is {kind_of(value)}", image=image)
    if _DATA.fullmatch(value) or (len(value) <= MAX_URL and _WEB.fullmatch(value) and value.isprintable()):
        return value
    hint = "it must be data:image/...;base64,... or an http(s) URL without a password"
    raise ImageInvalid(f"the image {image} is not a URL that may go to a model; {hint}", image=image)
