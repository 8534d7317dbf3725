"""What one request may cost before a flow has looked at it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

KIB = 1024


class EdgeLimits(BaseModel):
    """Bounds on every HTTP request to a predictor replica. Sizes in bytes, times in seconds.

    `deadline_s` covers the whole request, reading its body included; a client may ask for less with
    `x-deadline-seconds`, never for more. `max_json_depth` counts nested arrays and objects, in the body and
    in every JSON document inside a tensor. `max_concurrent_requests` bounds the POST requests in flight in
    this replica; None leaves that to Ray Serve (`max_ongoing_requests`).

    `per_scope_concurrency` is how many requests of one scope may run in this replica; None for as many as come. With
    it, up to `per_scope_queue` more of the scope wait for their turn, and beyond `max_concurrent_requests` the scopes
    take turns instead of being refused. All three hold for each replica of the predictor by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_body_bytes: Annotated[int, Field(ge=1)] = 4 * KIB * KIB
    max_json_depth: Annotated[int, Field(ge=1, le=200)] = 64
    max_batch: Annotated[int, Field(ge=1)] = 256
    max_headers: Annotated[int, Field(ge=1)] = 100
    max_header_bytes: Annotated[int, Field(ge=256)] = 32 * KIB
    deadline_s: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 60.0
    health_timeout_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 2.0
    max_concurrent_requests: Annotated[int, Field(ge=1)] | None = None
    per_scope_concurrency: Annotated[int, Field(ge=1)] | None = None
    per_scope_queue: Annotated[int, Field(ge=0, le=1000)] = 32
