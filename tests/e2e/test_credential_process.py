"""A command that the SDK runs for its credentials, `credential_process`, is our own child, not something of the app's."""

from pathlib import Path

from tests.e2e.machine import Machine, notes, write_note
from tests.harness.eventually import eventually

# Takes a moment, during which the app and its orphans come and go, and ends well; what it gives is to be refreshed at once.
# A shell, because one runs before nearly every request.
HELPER = """
calls=$1
trap 'echo signalled >> "$calls"' TERM
echo began >> "$calls"
sleep 0.2
end=$(date -u -d '+5 minutes' +%Y-%m-%dT%H:%M:%SZ)
printf '{"Version": 1, "SessionToken": "", "Expiration": "%s", "AccessKeyId": "%s", "SecretAccessKey": "%s"}' "$end" "$2" "$3"
echo ended >> "$calls"
"""
# Orphans end all the time; one that is left keeps the database's machine busy for a moment after SIGTERM.
APP = "trap 'exit 3' TERM; echo app started; while :; do (setsid sh -c 'exit 9' &); sleep 0.03; done"


def test_credentials_that_a_command_gives_last_to_the_final_backup(machine: Machine, tmp_path: Path) -> None:
    """
    1. The profile names a helper, which runs before nearly every request, while SIGCHLD arrives at any time.
    2. SIGTERM: the app's orphans are ended, a helper is not.
    Result: no request fails, and the app's status. Each helper that began has ended, and none was signalled.
    """
    calls = tmp_path / "calls"
    (tmp_path / "helper.sh").write_text(HELPER)
    keys = [machine.env["AWS_ACCESS_KEY_ID"], machine.env["AWS_SECRET_ACCESS_KEY"]]
    command = " ".join(("sh", str(tmp_path / "helper.sh"), str(calls), *keys))
    (tmp_path / "config").write_text(f"[profile helped]\ncredential_process = {command}\n")
    without = {name: value for name, value in machine.env.items() if name not in _KEYS}
    helped = Machine(
        machine.root, machine.store, {**without, "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "helped"}
    )
    with helped.run("sh", "-c", APP, interval="1s") as process:
        process.wait_ready()
        for number in range(2):
            write_note(helped.database, str(number))
            process.wait_metric("sidecar_backups_total", number + 1, outcome="published")
        write_note(helped.database, "last")
        before = calls.read_text().count("began")
        eventually(lambda: calls.read_text().count("began") > before, 30, "a helper runs")
        assert process.terminate() == 3
        assert "cannot be ended" not in process.stderr()
        assert '"backup failed"' not in process.stderr()
    told = calls.read_text().split()
    assert told.count("began") == told.count("ended") > 3
    assert "signalled" not in told
    assert notes(machine.restore_copy())[-1] == "last"


_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
