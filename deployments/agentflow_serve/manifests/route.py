"""How clients come in, by the paths of KServe and no others, without the headers that steer Serve or claim an identity.

Where keys say whose they are, sessions, the ledger and what a flow asks people have paths as well.
"""

from __future__ import annotations

from agentflow_serve.action_routes import PATH as ACTIONS
from agentflow_serve.manifests.common import SERVE_PORT, Document, document, serve_service
from agentflow_serve.manifests.settings import ManifestSettings
from agentflow_serve.manifests.subject import Subject
from agentflow_serve.request_headers import CONTROL_HEADERS

GATEWAY = "agentflow"
MULTIPLEXED = "serve_multiplexed_model_id"
"""Serve spells this one with underscores."""


def http_route(subject: Subject, settings: ManifestSettings) -> Document:
    stripped = sorted({*(name.decode() for name in CONTROL_HEADERS), MULTIPLEXED})
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}} for path in _paths(subject)],
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": stripped}}],
        "timeouts": {"request": f"{subject.answered_within_s}s"},
        "backendRefs": [{"name": serve_service(subject), "port": SERVE_PORT}],
    }
    parent = {"name": GATEWAY, "namespace": settings.gateway_namespace}
    spec: Document = {"parentRefs": [parent], "rules": [rule]}
    if settings.hostname:
        spec = {"parentRefs": [parent], "hostnames": [settings.hostname], "rules": [rule]}
    return document(subject, "gateway.networking.k8s.io/v1", "HTTPRoute", subject.name, spec=spec)


def _paths(subject: Subject) -> tuple[str, ...]:
    served = ("/v1/models", "/v2")
    return (*served, "/v1/sessions", "/v1/ledger", ACTIONS) if subject.args.get("auth") == "keys" else served
