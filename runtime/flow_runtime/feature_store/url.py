"""The address of a feature store in a configuration becomes a store."""

from __future__ import annotations

from importlib.util import find_spec

from flow_runtime.errors import FeatureStoreInvalid
from flow_runtime.feature_store.protocol import FeatureStore
from runtime_core.clock import Clock
from runtime_core.ids import IdSource

_FORMS = "local:./folder or hopsworks:project"
_NEEDS = {"local": (("duckdb",), "features"), "hopsworks": (("hsfs", "pyarrow"), "hopsworks")}
"""The packages behind each kind of store, and the extra of agentflow-serve that brings them."""


def check_feature_store(url: str | None) -> str:
    """The address, of a folder in full, if it is one and what it needs is installed. Raises FeatureStoreInvalid."""
    if url is None:
        raise FeatureStoreInvalid(f"the flow uses features: name a feature store (feature_store: {_FORMS})")
    kind, place = _parts(url)
    packages, extra = _NEEDS[kind]
    if not all(map(find_spec, packages)):
        raise FeatureStoreInvalid(
            f"the feature store {kind}: needs packages that are not installed: pip install 'agentflow-serve[{extra}]'"
        )
    if kind == "local":
        from flow_runtime.feature_store.local_folder import StoreFolder

        return f"local:{StoreFolder(place).root}"
    return url


def open_feature_store(url: str, *, clock: Clock, ids: IdSource) -> FeatureStore:
    """The store at an address that was checked. Close it with `aclose`."""
    kind, place = _parts(url)
    if kind == "local":
        from flow_runtime.feature_store.local import LocalFeatureStore
        from flow_runtime.feature_store.local_engine import LocalEngine

        return LocalFeatureStore(lambda: LocalEngine(place), clock=clock, ids=ids)
    from flow_runtime.feature_store.hopsworks_client import HopsworksClient
    from flow_runtime.feature_store.hopsworks_login import log_in
    from flow_runtime.feature_store.hopsworks_store import HopsworksFeatureStore

    return HopsworksFeatureStore(lambda: HopsworksClient(log_in(place)))


def _parts(url: str) -> tuple[str, str]:
    kind, colon, place = url.partition(":")
    if not colon or kind not in _NEEDS or (kind == "local" and not place):
        raise FeatureStoreInvalid(f"the feature store {url[:80]!r} is not one; write {_FORMS}")
    return kind, place
