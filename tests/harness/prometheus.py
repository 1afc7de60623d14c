"""A real Prometheus and its promtool: Debian's package `prometheus` has both."""

import http.client
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from tests.harness.environment import SYSTEM_PATH
from tests.harness.eventually import eventually
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.processes import Child

Series = dict[str, Any]

MISSING = [name for name in ("prometheus", "promtool") if not shutil.which(name)]
WHY_SKIPPED = f"{' and '.join(MISSING)} not installed (Debian: apt-get install --no-install-recommends prometheus)"


def promtool(*arguments: str, cwd: Path, text: str = "", timeout: float = 240.0) -> tuple[int, str]:
    """Run promtool to its end and return its status and output."""
    done = subprocess.run(
        ["promtool", *arguments],
        cwd=cwd,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
        env={"PATH": SYSTEM_PATH},
    )
    return done.returncode, done.stdout


class Prometheus:
    """A server that scrapes and evaluates rules every second. A context manager.

    `targets` are pairs of a loopback port and the labels that the platform would add to its samples.
    """

    def __init__(self, directory: Path, targets: Sequence[tuple[int, Mapping[str, str]]], rules: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._targets = targets
        self._rules = rules
        self._child: Child | None = None

    def __enter__(self) -> Self:
        scraped = [{"targets": [f"{LOOPBACK}:{port}"], "labels": dict(labels)} for port, labels in self._targets]
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(self._rules)],
            "scrape_configs": [{"job_name": "sidecar", "static_configs": scraped}],
        }
        (self._directory / "prometheus.json").write_text(json.dumps(configuration))  # JSON is YAML
        command = [
            "prometheus",
            "--config.file=prometheus.json",
            "--storage.tsdb.path=tsdb",
            f"--web.listen-address={LOOPBACK}:{self.port}",
            "--log.level=warn",
        ]
        with (self._directory / "prometheus.log").open("ab") as log:
            environment = {"PATH": SYSTEM_PATH}
            self._child = Child(command, environment, cwd=self._directory, stdout=log, stderr=log)
        try:
            eventually(self._answers, 30, f"Prometheus is ready, see {self._directory}/prometheus.log")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.kill()

    def query(self, expression: str) -> list[Series]:
        """The series of an instant query; each has `metric`, its labels, and `value`: a time and the value as text."""
        answer = self._get("/api/v1/query", query=expression)
        assert answer["status"] == "success", f"{answer.get('error')}: {expression}"
        return list(answer["data"]["result"])

    def values(self, expression: str) -> list[float]:
        """The values of a query, without NaN."""
        numbers = [float(each["value"][1]) for each in self.query(expression)]
        return [number for number in numbers if number == number]

    def label_values(self, label: str, match: str) -> list[str]:
        """The values of a label, as a dashboard's variable offers them."""
        return list(self._get(f"/api/v1/label/{label}/values", **{"match[]": match})["data"])

    def rules(self) -> list[Series]:
        """Every rule, with its `health` and its `lastError`."""
        groups = self._get("/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def firing(self) -> dict[str, Series]:
        """The annotations of the firing alerts, by name."""
        alerts = self._get("/api/v1/alerts")["data"]["alerts"]
        return {each["labels"]["alertname"]: each["annotations"] for each in alerts if each["state"] == "firing"}

    def wait_firing(self, *names: str, timeout: float = 30.0) -> dict[str, Series]:
        """Wait until all of these alerts fire, and return `firing`."""
        seen: dict[str, Series] = {}

        def all_fire() -> bool:
            seen.clear()
            seen.update(self.firing())
            return seen.keys() >= set(names)

        try:
            eventually(all_fire, timeout)
        except AssertionError:
            raise AssertionError(f"{sorted(set(names) - seen.keys())} do not fire, but {sorted(seen)}") from None
        return seen

    def wait_silent(self, *names: str, timeout: float = 30.0) -> None:
        """Wait until none of these alerts fires."""
        eventually(lambda: not self.firing().keys() & set(names), timeout, f"{names} are silent")

    def _answers(self) -> bool:
        assert self._child is not None
        assert self._child.running, (self._directory / "prometheus.log").read_text()[-2000:]
        try:
            return self._request("/-/ready")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def _get(self, path: str, **parameters: str) -> Any:
        return json.loads(self._request(f"{path}?{urlencode(parameters)}")[1])

    def _request(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
