"""kserve's DataPlane where it trusts a request or a model more than a flow's predictor may."""

from __future__ import annotations

from typing import Any, cast

import orjson
from cloudevents.sdk.converters.util import has_binary_headers
from kserve.constants.constants import INFERENCE_CONTENT_LENGTH_HEADER
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.infer_type import InferRequest
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.v2_datamodels import InferenceRequest

from agentflow_serve.binary_request import read_binary_request
from agentflow_serve.flow_model import FlowModel


class FlowDataPlane(DataPlane):
    """Serves FlowModels."""

    async def get_model(self, name: str) -> FlowModel:
        """The model, without kserve's attempt to load one that is not ready. Raises ModelNotFound."""
        return cast(FlowModel, self.get_model_from_registry(name))

    async def model_ready(self, model_name: str, disable_predictor_health_check: bool = False) -> bool:
        """Asks the flow's health check; requests, for which kserve disables it, wait for its first yes only."""
        readiness = (await self.get_model(model_name)).readiness
        return await (readiness.begun() if disable_predictor_health_check else readiness.now())

    def decode(self, body: Any, headers: Any, *args: Any, **kwargs: Any) -> Any:
        """As kserve; what its decoders raise about a body besides InvalidInput becomes InvalidInput."""
        try:
            if _is_plain_v1(body, headers, *args, **kwargs):
                # kserve goes the same way with a stopwatch, which takes longer than the way
                return self.decode_cloudevent(orjson.loads(body))
            return super().decode(body, headers, *args, **kwargs)
        except InvalidInput:
            raise
        except orjson.JSONDecodeError as exc:
            raise InvalidInput(f"Unrecognized request format: {exc}") from exc
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise InvalidInput("Unrecognized request format: the body is not what its headers say.") from exc

    def decode_inference_request(
        self, body: bytes | InferenceRequest, headers: dict[str, str], model_name: str
    ) -> InferRequest:
        json_length = headers.get(INFERENCE_CONTENT_LENGTH_HEADER)
        if isinstance(body, bytes) and json_length is not None:
            return read_binary_request(body, json_length=json_length, model_name=model_name)
        return super().decode_inference_request(body, headers, model_name)

    def encode(
        self, model_name: str, response: Any, headers: Any, req_attributes: dict[str, Any]
    ) -> tuple[Any, dict[str, str]]:
        """As kserve, with the JSON of V1 already written: its own ORJSONResponse is deprecated and warns."""
        body, response_headers = super().encode(model_name, response, headers, req_attributes)
        if isinstance(response, dict) and isinstance(body, dict):
            body = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
            response_headers = {**response_headers, "content-type": "application/json"}
        return body, response_headers


def _is_plain_v1(body: Any, headers: Any, *others: Any, **named: Any) -> bool:
    """Whether this is a V1 body in JSON that is not the data of a CloudEvent in its headers."""
    plain = type(body) is bytes and not others and not named and headers.get("content-type") == "application/json"
    return plain and not has_binary_headers(headers)


class FixedRepository(ModelRepositoryExtension):
    """Refuses to load and unload: a predictor is its flow, and would drop it in one replica only."""

    async def load(self, model_name: str) -> None:
        raise NotImplementedError("Model loading is not supported: the flow is deployed with its predictor.")

    async def unload(self, model_name: str) -> None:
        raise NotImplementedError("Model unloading is not supported: the flow is deployed with its predictor.")
