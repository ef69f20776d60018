# The base's digest is for the release to set; any Debian with Python 3.11 or newer as `python` does.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
RUN python -m venv /opt/reloader
COPY requirements.txt ./
RUN /opt/reloader/bin/pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY reloader ./reloader
RUN /opt/reloader/bin/pip install --no-cache-dir --no-deps .

FROM ${BASE}
# The root file system may be read-only, so no bytecode is written while it runs (pip wrote it during the build).
ENV PATH=/opt/reloader/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY --from=build /opt/reloader /opt/reloader
# The target has to run as the same user, or the signal does not get through.
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["reloader"]
CMD ["run"]
