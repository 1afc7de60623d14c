"""The Grafana dashboard, generated from `panels`: `python -m tests.dashboard` writes the file, a test compares it."""

import json
from pathlib import Path

from tests.dashboard.grafana import Json, laid_out, variable
from tests.dashboard.panels import ROWS

DASHBOARD = Path(__file__).parents[2] / "infra" / "observability" / "dashboard.json"


def dashboard() -> Json:
    """The dashboard as Grafana imports it."""
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus", "current": {}}
    variables = [
        source,
        variable("app", "label_values(sidecar_build_info, app)"),
        variable("region", 'label_values(sidecar_build_info{app=~"$app"}, region)'),
        variable("instance", 'label_values(sidecar_build_info{app=~"$app", region=~"$region"}, instance)'),
        variable("database", 'label_values(sidecar_unprotected_seconds{app=~"$app", instance=~"$instance"}, database)'),
    ]
    return {
        "uid": "sqlite-sidecar",
        "title": "SQLite sidecar",
        "description": "Whether your data is safe; if not, since when and why.",
        "tags": ["sidecar", "sqlite", "backup"],
        "editable": True,
        "schemaVersion": 38,
        "version": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": list(laid_out(ROWS)),
    }


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
