"""What the serve config says about operations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flow_runtime.operations.hosts import AllowedHost

HostEntry = Annotated[str, AfterValidator(lambda text: str(AllowedHost.parse(text)))]
Bytes = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

MIB = 1024 * 1024
ANY_MODULE = "*"


class OperationSettings(BaseModel):
    """Limits and permissions, the same for every flow of a server.

    `allow_hosts` names what flows may call although it is private or plain http: `host:port`, or `host` for
    the ports 80 and 443. Public addresses by https need no entry. `http_ca_file` holds further certificate
    authorities (PEM) that https servers may be signed by. `feature_store` is the address of a feature store, and
    `embedder` the role that embeds the text queries of vector searches which name none. `slot_modules` are the modules,
    or packages of modules, whose slots may be called; `*` is every module that is installed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_hosts: tuple[HostEntry, ...] = ()
    http_timeout_s: Seconds = 30.0
    http_connect_timeout_s: Seconds = 10.0
    http_max_request_bytes: Bytes = 4 * MIB
    http_max_response_bytes: Bytes = 4 * MIB
    http_max_connections: Annotated[int, Field(ge=1)] = 100
    http_ca_file: Path | None = None
    feature_store: str | None = None
    embedder: str | None = None
    slot_modules: tuple[str, ...] = ()
