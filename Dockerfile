# The demo app, wrapped: what an image of yours would look like. The digests are those of python:3.14-slim-trixie
# (docker-library/repo-info, Python 3.14.7); dependabot moves them on.
FROM python:3.14-slim-trixie@sha256:e11c17f46f87983eb946b121694dedba6290ee2b0dd5294d137d82943502d179 AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY sidecar sidecar
# A virtual environment is one directory to copy, and leaves pip, caches and sources behind.
RUN python -m venv /opt/sidecar \
    && /opt/sidecar/bin/python -m pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt .

FROM python:3.14-slim-trixie@sha256:e11c17f46f87983eb946b121694dedba6290ee2b0dd5294d137d82943502d179
# The app's own user: no shell, no home, no password.
RUN groupadd --system --gid 10001 app \
    && useradd --system --uid 10001 --gid app --no-create-home --shell /usr/sbin/nologin app \
    && install --directory --owner=app --group=app --mode=0750 /data
COPY --from=build /opt/sidecar /opt/sidecar
ENV PATH=/opt/sidecar/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GUESTBOOK_DB=/data/guestbook.db \
    GUESTBOOK_HOST=0.0.0.0 \
    GUESTBOOK_PORT=8080 \
    SIDECAR_DATABASES=/data/guestbook.db \
    SIDECAR_APP_USER=app
# No USER: sidecar stays root, because fly.io's token socket is root's only. The app runs as `app` (SIDECAR_APP_USER) and
# can reach neither.
EXPOSE 8080 9180
ENTRYPOINT ["sidecar", "run", "--"]
CMD ["python", "-m", "sidecar.demo"]
