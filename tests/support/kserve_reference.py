"""kserve's own ModelServer with a hand-written model that answers what the flow SHOUT answers.

Run as a program: `python kserve_reference.py PORT NOT_READY_FILE`. The model is not ready while the file is
there.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

PORT, NOT_READY = int(sys.argv[1]), Path(sys.argv[2])
sys.argv = sys.argv[:1]  # kserve parses the command line when it is imported

import numpy as np  # noqa: E402
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # noqa: E402
from kserve.errors import InvalidInput  # noqa: E402
from kserve.protocol.rest import server as rest_server  # noqa: E402
from kserve.utils.utils import generate_uuid  # noqa: E402


class Shout(Model):
    def __init__(self) -> None:
        super().__init__("shout")
        self.ready = True

    async def healthy(self) -> bool:
        return not NOT_READY.exists()

    def get_input_types(self) -> list[dict[str, Any]]:
        return [
            {"name": "text", "datatype": "BYTES", "shape": [-1]},
            {"name": "n", "datatype": "FP64", "shape": [-1]},
        ]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [
            {"name": "loud", "datatype": "BYTES", "shape": [-1]},
            {"name": "double", "datatype": "FP64", "shape": [-1]},
            {"name": "seen", "datatype": "BYTES", "shape": [-1]},
        ]

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        if isinstance(payload, InferRequest):
            return self._infer(payload)
        if isinstance(payload, bytes):
            payload = json.loads(payload)
        if not isinstance(payload, dict) or "instances" not in payload:
            raise InvalidInput('Expected a JSON object with "instances"')
        return {"predictions": [_shout(instance["text"], instance.get("n", 0.0)) for instance in payload["instances"]]}

    def _infer(self, request: InferRequest) -> InferResponse:
        text = request.get_input_by_name("text")
        n = request.get_input_by_name("n")
        assert text is not None
        texts = [item.decode() if isinstance(item, bytes) else item for item in text.as_numpy().flatten()]
        numbers = n.as_numpy().flatten().tolist() if n is not None else [0.0] * len(texts)
        rows = [_shout(text, number) for text, number in zip(texts, numbers, strict=True)]
        seen = [json.dumps(row["seen"], separators=(",", ":"), ensure_ascii=False) for row in rows]
        outputs = [
            _output("loud", "BYTES", np.array([row["loud"] for row in rows], dtype=np.object_)),
            _output("double", "FP64", np.array([row["double"] for row in rows], dtype=np.float64)),
            _output("seen", "BYTES", np.array(seen, dtype=np.object_), {"content_type": "json"}),
        ]
        return InferResponse(
            response_id=request.id or generate_uuid(),
            model_name=self.name,
            infer_outputs=outputs,
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )


def _shout(text: str, n: float) -> dict[str, Any]:
    return {"loud": text.upper(), "double": 2.0 * n, "seen": {"text": text, "n": n}}


def _output(name: str, datatype: str, array: Any, parameters: dict[str, Any] | None = None) -> InferOutput:
    return InferOutput(name, list(array.shape), datatype, array, parameters)


if __name__ == "__main__":
    # ModelServer has no option for the address and would listen on all of them.
    config = rest_server.uvicorn.Config

    def on_loopback(*args: Any, **kwargs: Any) -> Any:
        return config(*args, **{**kwargs, "host": "127.0.0.1"})

    rest_server.uvicorn.Config = functools.wraps(config)(on_loopback)  # type: ignore[misc]
    ModelServer(http_port=PORT, enable_grpc=False).start([Shout()])
