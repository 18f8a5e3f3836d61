# The image of a node: the program and what it runs on, nothing to build with, no secret, not root.
# docs/operations.md, "Containers", says how to use it.

# What the node runs on, from the lock file with hashes.
FROM python:3.11-slim AS dependencies
COPY requirements/run.lock /build/run.lock
RUN python -m venv /opt/hotline \
 && /opt/hotline/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /build/run.lock

# The program as a wheel, built with the tools of the developers' lock file; none of them gets into the image.
FROM python:3.11-slim AS wheel
COPY requirements/dev.lock /build/requirements/dev.lock
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
      -r /build/requirements/dev.lock
COPY pyproject.toml README.md /build/
COPY node /build/node
COPY protocol /build/protocol
COPY geo /build/geo
COPY migrations /build/migrations
RUN /opt/build/bin/pip wheel --disable-pip-version-check --no-deps --no-build-isolation \
      --wheel-dir /build/wheels /build

FROM dependencies AS installed
COPY --from=wheel /build/wheels /build/wheels
RUN /opt/hotline/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-index /build/wheels/*.whl

FROM python:3.11-slim
# The number counts, not the name: files that hold secrets have to belong to it (mode 0600).
RUN groupadd --gid 10001 hotline \
 && useradd --uid 10001 --gid hotline --home-dir /var/lib/hotline --no-create-home --shell /usr/sbin/nologin hotline \
 && install -d -o hotline -g hotline -m 0700 /var/lib/hotline /var/lib/hotline-keys
COPY --from=installed /opt/hotline /opt/hotline
ENV PATH=/opt/hotline/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOTLINE_SETTINGS=/var/lib/hotline/hotline.toml
USER 10001:10001
WORKDIR /var/lib/hotline
# The peer protocol and the API; nothing is published by this line.
EXPOSE 8701 8702
ENTRYPOINT ["hotline"]
CMD ["serve"]
