"""fly.toml and the image: deployed as they stand, do they fit what sidecar needs?"""

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sidecar.settings.fields import Settings, listen_address
from sidecar.settings.load import PREFIX, load
from sidecar.units import parse_duration
from tests.harness.environment import ROOT

FLY_FILES = [ROOT / "fly.toml", ROOT / "infra" / "fly.bluegreen.toml"]
DOCKERFILE = ROOT / "Dockerfile"
# What giving up an upload and releasing the lease take beyond the two timeouts; see docs/how-it-works.md, "Shutdown".
GIVING_UP = timedelta(seconds=20)
# fly.io lowers a longer grace of a service's check to this (flyctl, internal/appconfig/validation.go); a file that says more
# promises what does not happen.
SERVICE_GRACE = timedelta(minutes=1)


@pytest.mark.parametrize("file", FLY_FILES, ids=lambda path: path.name)
def test_fly_waits_for_the_last_restore_point(file: Path) -> None:
    """`kill_timeout` holds the app's grace, the final backup and giving up; fly.io allows 300 s."""
    document, settings = _fly(file)
    budget = settings.shutdown_grace + settings.final_backup_timeout + GIVING_UP
    assert budget <= timedelta(seconds=document["kill_timeout"]) <= timedelta(seconds=300)
    assert document["kill_signal"] == "SIGTERM"
    assert document["http_service"]["auto_stop_machines"] == "stop"


@pytest.mark.parametrize("file", FLY_FILES, ids=lambda path: path.name)
def test_fly_file_watches_what_sidecar_serves(file: Path) -> None:
    document, settings = _fly(file)
    address = listen_address(settings.listen)
    assert address is not None
    assert document["metrics"] == {"port": address[1], "path": "/metrics"}
    assert document["checks"]["ready"]["port"] == address[1]
    assert document["checks"]["ready"]["path"] == "/readyz"
    assert address[0] == "0.0.0.0"
    for check in document["checks"].values():
        assert parse_duration(check["grace_period"]) >= settings.restore_timeout
    for check in document["http_service"]["checks"]:
        assert parse_duration(check["grace_period"]) == SERVICE_GRACE
    assert parse_duration(document["deploy"]["wait_timeout"]) > settings.restore_timeout + SERVICE_GRACE


@pytest.mark.parametrize("file", FLY_FILES, ids=lambda path: path.name)
def test_fly_file_has_a_role_and_no_key(file: Path) -> None:
    environment = _fly(file)[0]["env"]
    assert re.fullmatch(r"arn:aws:iam::\d{12}:role/sidecar/sidecar-writer-[a-z0-9-]+", environment["AWS_ROLE_ARN"])
    assert environment["SIDECAR_STORE"].startswith("s3://")
    assert environment["AWS_REGION"]
    assert not re.search(r"ACCESS_KEY|SECRET|TOKEN", " ".join(environment))


def test_each_strategy_fits_the_lease() -> None:
    """Rolling: never two machines. Bluegreen starts the second first: without the handoff it would wait in vain."""
    rolling, bluegreen = (_fly(file)[0] for file in FLY_FILES)
    assert rolling["deploy"]["strategy"] == "rolling"
    assert "SIDECAR_LEASE_HANDOFF" not in rolling["env"]
    assert bluegreen["deploy"]["strategy"] == "bluegreen"
    assert bluegreen["env"]["SIDECAR_LEASE_HANDOFF"] == "request"


def test_base_images_are_pinned_by_digest() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert len(bases) == 4
    assert [each for each in bases if not re.fullmatch(r"(python|debian):[\w.-]+@sha256:[0-9a-f]{64}", each)] == []


def test_image_has_known_settings_and_an_app_that_is_not_root() -> None:
    text = DOCKERFILE.read_text()
    environment = _image_environment(text)
    _assert_known(environment)
    load({}, {name: value for name, value in environment.items() if _is_built(name)})
    assert re.search(rf"useradd .*--shell /usr/sbin/nologin {environment['SIDECAR_APP_USER']}\b", text)
    assert environment["GUESTBOOK_DB"] == environment["SIDECAR_DATABASES"]


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/deploy/docker.md"])
def test_published_image_is_the_bundle_where_the_docs_copy_it_from(page: str) -> None:
    text = DOCKERFILE.read_text()
    (published,) = re.findall(r"^ +target: (\w+)\b", (ROOT / ".github/workflows/release.yml").read_text(), re.MULTILINE)
    stage = re.split(r"^FROM ", text.split(f" AS {published}\n")[1], flags=re.MULTILINE)[0]
    assert re.search(r"^COPY --from=build \S+ /opt/sidecar$", stage, re.MULTILINE)
    assert "COPY --from=ghcr.io/OWNER/sidecar:0.1.0 /opt/sidecar /opt/sidecar" in (ROOT / page).read_text()
    assert re.search(r'^ENTRYPOINT \["/opt/sidecar/sidecar", "run", "--"\]$', text, re.MULTILINE)


def test_build_context_is_a_list_of_what_is_needed() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
        for name in line.split()
    }
    assert {next((each for each in allowed if f"{name}/".startswith(f"{each}/")), name) for name in copied} == allowed


def _fly(file: Path) -> tuple[dict[str, Any], Settings]:
    """A fly.toml, and the settings that its machine would run with. A name or value that sidecar refuses fails here."""
    document = tomllib.loads(file.read_text())
    environment = {**_image_environment(DOCKERFILE.read_text()), **document["env"]}
    _assert_known(environment)
    return document, load({}, {name: value for name, value in environment.items() if _is_built(name)}).settings


def _image_environment(dockerfile: str) -> dict[str, str]:
    return dict(re.findall(r"^(?:ENV|   ) ([A-Z_]+)=(\S+)", dockerfile, re.MULTILINE))


def _assert_known(environment: dict[str, str]) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert {name for name in environment if name.startswith(PREFIX)} <= known


def _is_built(variable: str) -> bool:
    return variable.removeprefix(PREFIX).lower() in Settings.model_fields
