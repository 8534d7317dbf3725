"""The bodies of declarative operations. Importing this package loads none of them; `bind_operation` does."""

from flow_runtime.operations.base import (
    BoundOperation,
    Operation,
    OperationBinding,
    OperationCall,
    OperationFactory,
    Preparing,
    with_resolved_args,
)
from flow_runtime.operations.registry import ENTRY_POINT_GROUP, bind_operation
from flow_runtime.operations.resources import OperationResources
from flow_runtime.operations.settings import OperationSettings

__all__ = [
    "ENTRY_POINT_GROUP",
    "BoundOperation",
    "Operation",
    "OperationBinding",
    "OperationCall",
    "OperationFactory",
    "OperationResources",
    "OperationSettings",
    "Preparing",
    "bind_operation",
    "with_resolved_args",
]
