"""Functions that a model may ask for: what it sees of them, and how a request becomes a safe call."""

from .signature import Injected
from .tool import Tool, tool

__all__ = ["Injected", "Tool", "tool"]
