"""The tools under test: where they are, what can be asked of them."""

import os
import pathlib
import subprocess

BUILD = pathlib.Path(os.environ["SSI_BUILD"])
SOURCE = pathlib.Path(os.environ["SSI_SOURCE"])

# Those that talk to ssid, each with a command line that makes it connect.
ASKING = [
    ["ssi-run", "-b", "true"],
    ["ssi-run", "true"],
    ["ssi-ps"],
    ["ssi-nodes"],
    ["ssi-nodes", "--wait", "2"],
    ["ssi-nodes", "--history"],
    ["ssi-events"],
    ["ssi-events", "--follow"],
    ["ssi-migrate", "70000", "n2"],
    ["ssi-capset", "70000"],
    ["ssi-capset", "-CAN_MIGRATE"],
    ["ssi-checkpoint", "70000"],
    ["ssi-checkpoint", "--list"],
    ["ssi-checkpoint", "--inspect", "70000-1"],
    ["ssi-checkpoint", "--rm", "70000-1"],
    ["ssi-restart", "70000-1"],
    ["ssi-restart", "-b", "70000-1"],
    ["ssi-admin", "token"],
    ["ssi-admin", "status"],
    ["ssi-admin", "status", "--wait", "1"],
    ["ssi-admin", "fault", "x", "none"],
]

# These let ssid keep the time, and undo, and give it 20 s more.
PATIENT = [["ssi-migrate", "70000", "n2"], ["ssi-checkpoint", "70000"]]
PATIENCE_S = 20

PAGES = {
    "ssi": 1, "ssi-capset": 1, "ssi-checkpoint": 1, "ssi-events": 1, "ssi-migrate": 1, "ssi-nodes": 1, "ssi-ps": 1, "ssi-restart": 1,
    "ssi-run": 1, "ssi-admin": 8, "ssi_add_nodes": 8, "ssi_remove_nodes": 8, "ssid": 8, "ssi-lab": 1,
}


def path(tool):
    if tool == "ssi-lab":
        return SOURCE / "cli" / "ssi-lab"
    return BUILD / ("daemon/node" if tool == "ssid" else "cli") / tool


def run(command, *options, timeout=30):
    """Run @command with @options behind the tool's name."""
    return subprocess.run(
        [command[0], *options, *command[1:]], executable=path(command[0]), stdin=subprocess.DEVNULL,
        text=True, errors="replace", capture_output=True, timeout=timeout, check=False)
