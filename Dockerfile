# The base's digest is for the release to set; any Debian with Python 3.11 or newer as `python` does.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
# Two environments: the one that builds stays behind, and pip with it.
RUN python -m venv /build && python -m venv --without-pip /opt/reloader
# Wheels alone: what an architecture lacks is told here, instead of looking for a compiler.
COPY requirements-build.txt ./
RUN /build/bin/pip install --no-cache-dir --only-binary=:all: --require-hashes -r requirements-build.txt
COPY requirements.txt ./
RUN /build/bin/pip --python=/opt/reloader/bin/python install --no-cache-dir --no-compile --only-binary=:all: --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY reloader ./reloader
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir=/wheel . \
 && /build/bin/pip --python=/opt/reloader/bin/python install --no-compile --no-index --no-deps --find-links=/wheel config-reloader
COPY image/bytecode.py ./
RUN mkdir /bytecode && /opt/reloader/bin/python -I bytecode.py /bytecode

FROM ${BASE}
ENV PATH=/opt/reloader/bin:$PATH
COPY --from=build /bytecode/ /
COPY --from=build /opt/reloader /opt/reloader
# The target has to run as the same user, or the signal does not get through.
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/reloader/bin/reloader"]
CMD ["run"]
ARG BASE
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="reloader" \
      org.opencontainers.image.description="Renders configuration from Vault, Consul or mounted files onto a shared volume and makes a running process take it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE}"
