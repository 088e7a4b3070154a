# The agent's own image: docker build -t agp/agent .   (or `.ci/images --agent`, which also brings the packages along
# where the engine cannot reach a package index)
ARG BASE_IMAGE=debian:trixie-slim

FROM ${BASE_IMAGE} AS build
LABEL agp.build.stage="build"

# One Debian release is the pin: fixed package versions would lock its security updates out.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends binutils ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# dist/wheelhouse is optional (its name is a pattern in both parts, and a pattern may match nothing): with wheels there,
# they are all that pip may use; without, they come from the package index. The hashes are checked either way.
# Byte code that is never compared with its source loads fastest and is the same in every build; so are the file times.
# Wheels bring libraries with symbols for debuggers, and Pygments colours 500 languages where tracebacks are Python's alone:
# a seventh of the image.
WORKDIR /src
# REQUIREMENTS=requirements-otel.lock gives an image that can send traces (AGP_OTLP_ENDPOINT).
ARG REQUIREMENTS=requirements.lock
COPY ${REQUIREMENTS} dis[t]/wheelhous[e] /wheelhouse/
RUN python3 -m venv /opt/agp-agent \
    && if ls /wheelhouse/*.whl >/dev/null 2>&1; then set -- --no-index --find-links=/wheelhouse; fi \
    && /opt/agp-agent/bin/pip install --no-cache-dir --no-compile "$@" --no-deps --require-hashes -r "/wheelhouse/${REQUIREMENTS}" \
    && find /opt/agp-agent -name '*.so*' -type f -exec strip --strip-unneeded {} + \
    && find /opt/agp-agent -path '*/pygments/lexers/*' -name '*.py' ! -name '_*' ! -name 'python.py' -delete \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/agp-agent/lib

COPY pyproject.toml README.md LICENSE ./
COPY src ./src
ARG SOURCE_DATE_EPOCH=0
ARG REVISION=unknown
RUN printf '%s\n' "${REVISION}" >src/agp_agent/COMMIT \
    && if ls /wheelhouse/*.whl >/dev/null 2>&1; then set -- --no-index --find-links=/wheelhouse; fi \
    && /opt/agp-agent/bin/pip install --no-cache-dir --no-compile "$@" --no-deps . \
    && /opt/agp-agent/bin/pip uninstall --yes pip \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/agp-agent/lib/python3*/site-packages/agp_agent \
    && find /opt/agp-agent -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} + \
    && chmod -R go=u,go-w /opt/agp-agent

FROM ${BASE_IMAGE}

# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/cache/ldconfig/* /var/log/* /usr/share/doc/*python* \
        /usr/bin/tini-static /usr/lib/python3.13/test /usr/lib/python3.13/pydoc_data /usr/lib/python3.13/turtledemo \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && echo 'agp-agent:x:10001:10001:AGP Enterprise Agent:/var/lib/agp-agent:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'agp-agent:x:10001:' >>/etc/group \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/agp-agent

COPY --from=build /opt/agp-agent /opt/agp-agent

ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="agp/agent" \
      org.opencontainers.image.description="Runs automation playbooks in ephemeral, locked-down containers" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"

# The state directory is the only place that the agent writes to: mount it, everything else may be read-only.
ENV PATH=/opt/agp-agent/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/var/lib/agp-agent \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AGP_STATE_DIR=/var/lib/agp-agent
WORKDIR /var/lib/agp-agent
USER 10001:10001
EXPOSE 8470
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 CMD ["agp-agent", "healthcheck"]
ENTRYPOINT ["/usr/bin/tini", "--", "agp-agent"]
CMD ["serve"]
