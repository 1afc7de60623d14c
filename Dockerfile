# Two images. Target `bundle` is published on GHCR: /opt/sidecar, to be copied into any image with glibc. The last target,
# which `fly deploy` uses, is the demo app with the bundle: an example for your own image.
# Digests are those of docker-library/repo-info (Python 3.14.7); dependabot updates them.

# The older Debian on purpose: what is built here also runs on newer versions of glibc, but not on older ones. Not slim,
# because PyInstaller needs binutils, and the build needs make.
FROM python:3.14-bookworm@sha256:bfb689a7986adc6d5f16722e06c78e755efe4062e56276715fef450cbad09436 AS build
WORKDIR /src
COPY Makefile pyproject.toml constraints.txt README.md LICENSE ./
COPY infra/bundle infra/bundle
COPY sidecar sidecar
RUN make bundle

# Only Debian and the bundle, so that it also runs as a container of its own beside an app that shares its data directory.
FROM debian:trixie-slim@sha256:3a39a0592364683e6bab97937b72cad5a8fa6dcbbee90edb3bb48c7f8e94f258 AS bundle
COPY --from=build /src/dist/sidecar /opt/sidecar
EXPOSE 9180
ENTRYPOINT ["/opt/sidecar/sidecar"]
CMD ["run"]

# The demo's own dependencies, like those of your app. sidecar includes everything that it needs and shares none of them.
FROM python:3.14-slim-trixie@sha256:e11c17f46f87983eb946b121694dedba6290ee2b0dd5294d137d82943502d179 AS app
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/app \
    && /opt/app/bin/python -m pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt aiohttp aiosqlite

FROM python:3.14-slim-trixie@sha256:e11c17f46f87983eb946b121694dedba6290ee2b0dd5294d137d82943502d179
# The app's own user: no shell, no home, no password.
RUN groupadd --system --gid 10001 app \
    && useradd --system --uid 10001 --gid app --no-create-home --shell /usr/sbin/nologin app \
    && install --directory --owner=app --group=app --mode=0750 /data
COPY --from=app /opt/app /opt/app
COPY sidecar/__init__.py /opt/app/src/sidecar/
COPY sidecar/demo /opt/app/src/sidecar/demo
# In your image: COPY --from=ghcr.io/OWNER/sidecar:VERSION /opt/sidecar /opt/sidecar
COPY --from=bundle /opt/sidecar /opt/sidecar
ENV PATH=/opt/app/bin:/opt/sidecar:$PATH \
    PYTHONPATH=/opt/app/src \
    PYTHONUNBUFFERED=1 \
    GUESTBOOK_DB=/data/guestbook.db \
    GUESTBOOK_HOST=0.0.0.0 \
    GUESTBOOK_PORT=8080 \
    SIDECAR_DATABASES=/data/guestbook.db \
    SIDECAR_APP_USER=app
# No USER: sidecar runs as root, because only root can use fly.io's token socket. The app runs as `app` (SIDECAR_APP_USER),
# which can access neither.
EXPOSE 8080 9180
ENTRYPOINT ["/opt/sidecar/sidecar", "run", "--"]
CMD ["python", "-m", "sidecar.demo"]
