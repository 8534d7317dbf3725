"""The files of a context, but for the wheel: how the image is built, what it installs and what it starts."""

from __future__ import annotations

from string import Template

APP = "/srv/agentflow"
USER_ID = 10001

_DOCKERFILE = Template(
    """\
# docker build --build-arg PYTHON_DIGEST=sha256:... -t REGISTRY/$name .
# The digest of python:$python is in the output of: docker buildx imagetools inspect python:$python
ARG PYTHON_DIGEST$digest

FROM python:$python@$${PYTHON_DIGEST} AS libraries
RUN python -m venv /opt/venv
COPY requirements.txt $wheel /build/
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r /build/requirements.txt \\
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --no-index /build/$wheel \\
    && /opt/venv/bin/python -m compileall -q /opt/venv/lib

FROM python:$python@$${PYTHON_DIGEST}
# KubeRay's readiness probe of workers is a bash script that calls wget and grep. It may start Ray in a login shell, and
# that forgets PATH.
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends bash grep wget \\
    && rm -rf /var/lib/apt/lists/* \\
    && useradd --uid $user --no-create-home --home-dir /tmp --shell /usr/sbin/nologin agentflow \\
    && mkdir -p /var/lib/agentflow && chown $user:$user /var/lib/agentflow \\
    && echo 'export PATH=/opt/venv/bin:$$PATH' > /etc/profile.d/agentflow.sh
COPY --from=libraries /opt/venv /opt/venv
COPY --chmod=0555 entrypoint.sh $app/
COPY --chmod=0444 serve.yaml $app/
ENV PATH=/opt/venv/bin:$$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
WORKDIR $app
USER $user:$user
EXPOSE 8000
ENTRYPOINT ["$app/entrypoint.sh"]
"""
)

_ENTRYPOINT = """\
#!/bin/bash
# Without arguments the flow is served on this machine alone; KubeRay gives a command of its own.
set -euo pipefail
if [ "$#" -gt 0 ]; then
    exec "$@"
fi
exec agentflow serve --config "$(dirname "$0")/serve.yaml"
"""


def dockerfile(*, name: str, python: str, digest: str | None, wheel: str) -> str:
    """`digest` becomes the default of the build argument; without one whoever builds must give it."""
    return _DOCKERFILE.substitute(
        name=name, python=python, digest=f"={digest}" if digest else "", wheel=wheel, user=USER_ID, app=APP
    )


def entrypoint() -> str:
    return _ENTRYPOINT


def dockerignore(names: list[str]) -> str:
    """Nothing goes to the builder but what the Dockerfile copies."""
    return "*\n" + "".join(f"!{name}\n" for name in sorted(names))
