"""A Hopsworks project, with everything secret from the environment variables that its client knows."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from flow_runtime.errors import FeatureStoreInvalid


def log_in(project: str, environ: Mapping[str, str] = os.environ) -> Any:
    """The project; an empty name means that of HOPSWORKS_PROJECT. Blocks. Raises FeatureStoreInvalid.

    Host, key and certificates come from HOPSWORKS_HOST, HOPSWORKS_API_KEY and the like.
    """
    inside = "REST_ENDPOINT" in environ  # of a Hopsworks cluster, where nothing needs to be said
    project = project or environ.get("HOPSWORKS_PROJECT", "")
    key = environ.get("HOPSWORKS_API_KEY", "").strip()
    # what is missing, the client would ask for on the terminal
    if not inside and not key:
        raise FeatureStoreInvalid(
            "the feature store hopsworks: needs a key: set HOPSWORKS_API_KEY (and HOPSWORKS_HOST)"
        )
    if not inside and not project:
        raise FeatureStoreInvalid("the feature store hopsworks: needs a project: write hopsworks:<project>")
    import hopsworks

    try:
        with redirect_stdout(sys.stderr):  # it greets on stdout, which is for answers
            return hopsworks.login(project=project or None, api_key_value=key or None, engine="python")
    except Exception as exc:
        raise FeatureStoreInvalid(f"Hopsworks did not let us in: {type(exc).__name__}: {exc}"[:500]) from exc
