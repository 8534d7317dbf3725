"""Which code a server runs; apart from `code`, which starts sandboxes."""

from __future__ import annotations

from typing import Literal

CodeMode = Literal["inline", "modules", "off"]
"""Code that stands in the flow file, installed modules only, or none."""
