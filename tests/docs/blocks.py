"""The generated parts of the pages, from the code that they describe: settings, commands, metrics, alerts."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sidecar.cli.main import cli
from sidecar.model import Database
from sidecar.monitoring.metrics import Metrics
from sidecar.settings.fields import Settings
from sidecar.settings.kinds import kind_of
from sidecar.status.model import Status
from sidecar.units import format_duration, format_size
from tests.harness.environment import ROOT

ALERTS = ROOT / "infra" / "observability" / "alerts.yml"


def settings_table() -> str:
    """One row for each setting."""
    options = {option.name: option for option in cli.commands["run"].params}
    rows = []
    for name, field in Settings.model_fields.items():
        unset = field.default in {None, (), PydanticUndefined}
        default = "–" if unset else f"`{_format_default(field, field.default)}`"
        rows.append((f"`{name}`", default, _kind(options[name]), field.description or ""))
    return _table(("setting", "default", "value", "meaning"), rows)


def _format_default(field: FieldInfo, value: object) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, StrEnum):
        return value.value
    return format_size(float(str(value))).replace(".0 ", "") if kind_of(field).size else str(value)


def _kind(option: click.Parameter) -> str:
    """What a value looks like, from the option's own placeholder: `[start|fail]`, `DURATION`, `SIZE|PERCENT`."""
    placeholder = option.metavar or ""
    if placeholder.startswith("["):
        return ", ".join(f"`{choice}`" for choice in placeholder.strip("[]").split("|"))
    kind = " or ".join(word if word == "URL" else word.lower() for word in placeholder.split("|")).replace(
        "value", "text"
    )
    return f"{kind}, repeatable" if isinstance(option, click.Option) and option.multiple else kind


def command_help() -> str:
    """A section for each command, with what `--help` prints."""
    group = click.Context(cli, info_name="sidecar", **cli.context_settings, terminal_width=100, max_content_width=100)
    return "\n\n".join(
        f"### sidecar {name}\n\n```text\n{_help(command, group)}\n```" for name, command in cli.commands.items()
    )


def _help(command: click.Command, group: click.Context) -> str:
    context = click.Context(command, info_name=command.name, parent=group, terminal_width=100, max_content_width=100)
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


def metrics_table() -> str:
    """One row for each metric."""
    rows = []
    for family in Metrics(_full_status()).collect():
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown = f"{name}{{{','.join(labels)}}}" if labels else name
        rows.append((f"`{shown}`", family.type, family.documentation))
    return _table(("metric", "type", "meaning"), rows)


def metric_names() -> set[str]:
    """The names of all series that `/metrics` has."""
    return {sample.name for family in Metrics(_full_status()).collect() for sample in family.samples}


def _full_status() -> Status:
    """A status that has something of everything: some metrics are there only when there is something to say."""
    databases = (Database("app.db", Path("/data/app.db")),)
    status = Status(databases, "s3://bucket", "0", lambda: datetime.now(UTC))
    status.lease.enabled = True
    status.interval = status.final_backup_timeout = status.drill_interval = timedelta(seconds=1)
    status.count_request("put", "ok", 0.1)
    status.succeeded("app.db", "published")
    status.drilled("app.db", "good", "key", 1.0)
    status.restored("app.db", "restored", 1.0, 1, None)
    status.databases["app.db"].final.whole = 1.0
    status.databases["app.db"].stream.setting, status.databases["app.db"].stream.active = "on", True
    status.databases["app.db"].stream.oldest = status.credentials_expiry = datetime.now(UTC)
    return status


def alert_sections() -> str:
    """A section for each alert: how bad it is, what it means, what to do, and its expression."""
    return "\n\n".join(_alert_section(name, rule) for name, rule in alerts().items())


def alerts() -> Mapping[str, Mapping[str, str]]:
    """The fields of each alert, by its name. The file is regular enough to be read line by line."""
    _, *blocks = ALERTS.read_text().split("      - alert: ")
    return {block.partition("\n")[0]: _fields(block) for block in blocks}


def _fields(block: str) -> dict[str, str]:
    fields = dict(re.findall(r"^ {8,10}(for|summary|description|runbook): (.+)$", block, re.MULTILINE))
    severity, expression = re.search(r"severity: (\w+)", block), re.search(r"expr: (\|\n(?: {10}.*\n)+|.+\n)", block)
    assert severity, block
    assert expression, block
    lines = expression[1].removeprefix("|\n").splitlines()
    return {
        **{name: _unquoted(value) for name, value in fields.items()},
        "severity": severity[1],
        "expr": "\n".join(line.removeprefix(" " * 10) for line in lines),
    }


def _unquoted(text: str) -> str:
    return text[1:-1].replace('\\"', '"') if text.startswith('"') else text


def _alert_section(name: str, rule: Mapping[str, str]) -> str:
    pending = f", after {rule['for']}" if "for" in rule else ""
    return "\n\n".join(
        [
            f"### {name}",
            f"**{rule['severity']}**{pending}. {_linked(rule['description'])}",
            f"**What to do:** {_linked(rule['runbook'])}",
            f"```text\n{rule['expr']}\n```",
        ]
    )


def _linked(text: str) -> str:
    return re.sub(r"\bdocs/(([\w/-]+)\.md)", r"[\g<2>](\g<1>)", text)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "commands": command_help,
    "metrics": metrics_table,
    "alerts": alert_sections,
}
