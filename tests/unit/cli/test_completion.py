"""The bash completion, with tools in whose place scripts stand."""

import os
import subprocess
import tempfile
import unittest

from tools import BUILD, SOURCE

SCRIPT = SOURCE / "cli" / "completion" / "ssi.bash"

# What the tools print with --json, shortened.
ANSWERS = {
    "ssi-nodes": '{\n   "version": 1,\n   "nodes": [\n      {\n         "id": 1,\n         "node": "n1"\n'
                 '      },{\n         "id": 2,\n         "node": "n2"\n      }\n   ]\n}',
    "ssi-ps": '{\n   "version": 1,\n   "processes": [\n      {\n         "pid": 65538,\n'
              '         "ppid": 1,\n         "app": 65537,\n         "name": "sim",\n         "command": "x"\n      }\n   ]\n}',
    "ssi-checkpoint": '{\n   "version": 1,\n   "checkpoints": [\n      {\n'
                      '         "name": "65538-1",\n         "node": "n1"\n      }\n   ]\n}',
}


class Completion(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.bin = directory.name
        for tool in ["ssi", "ssi-admin", "ssi-capset", "ssi-migrate", "ssi-nodes", "ssi-events", "ssi-ps", "ssi-checkpoint",
                     "ssi-restart", "ssi-run"]:
            answer = ANSWERS.get(tool, "{}")
            file = os.path.join(self.bin, tool)
            with open(file, "w", encoding="utf-8") as f:
                f.write(f"#!/bin/sh\ncase $* in *--json*) cat <<'END'\n{answer}\nEND\n;;\n"
                        f"*) exec '{BUILD}/cli/{tool}' \"$@\" ;; esac\n")
            os.chmod(file, 0o755)

    def complete(self, *words):
        script = (f". '{SCRIPT}'; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); compopt() {{ :; }}\n"
                  "_ssi \"$1\"; printf '%s\\n' \"${COMPREPLY[@]}\"")
        out = subprocess.run(
            ["bash", "--norc", "-c", script, "bash", *words], capture_output=True, text=True,
            env={**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"}, check=True)
        self.assertEqual(out.stderr, "")
        return out.stdout.split()

    def test_nodes(self):
        self.assertEqual(self.complete("ssi-run", "--node", ""), ["n1", "n2"])
        self.assertEqual(self.complete("ssi-run", "--nodes", "n1,n"), ["n1,n1", "n1,n2"])
        self.assertEqual(self.complete("ssi-migrate", "65538", ""), ["n1", "n2"])
        self.assertEqual(self.complete("ssi-migrate", "-n", "65538", "n2"), ["n2"])
        self.assertEqual(self.complete("ssi-restart", "--on", "n"), ["n1", "n2"])

    def test_pids_and_applications(self):
        self.assertEqual(self.complete("ssi-migrate", ""), ["65538", "sim"])
        self.assertEqual(self.complete("ssi-checkpoint", "--dir", "/x", "65"), ["65538"])
        self.assertEqual(self.complete("ssi-ps", "--app", ""), ["65537", "sim"])
        self.assertEqual(self.complete("ssi-ps", ""), ["65538"])

    def test_capabilities(self):
        self.assertEqual(self.complete("ssi-capset", "-e", "+CAN"), ["+CAN_MIGRATE"])
        self.assertEqual(self.complete("ssi-capset", "--inheritable-effective", "-D"), ["-DISTANT_FORK"])
        self.assertEqual(self.complete("ssi-capset", "+D"), ["+DISTANT_FORK"])
        self.assertEqual(self.complete("ssi-capset", "-k", ""), ["65538"])
        self.assertIn("65538", self.complete("ssi-capset", "-e", "+CAN_MIGRATE", ""))

    def test_checkpoints(self):
        self.assertEqual(self.complete("ssi-restart", ""), ["65538-1"])
        self.assertEqual(self.complete("ssi-checkpoint", "--rm", "6"), ["65538-1"])

    def test_options_are_those_of_the_tool(self):
        self.assertEqual(self.complete("ssi-migrate", "--d"), ["--dry-run"])
        self.assertEqual(self.complete("ssi-migrate", "--e"), ["--explain"])
        self.assertEqual(self.complete("ssi-checkpoint", "--le"), ["--leave-running"])
        self.assertIn("-k", self.complete("ssi-checkpoint", "-"))

    def test_types_of_events(self):
        self.assertEqual(self.complete("ssi-events", "--type", "proc"), ["process-moved"])
        self.assertEqual(self.complete("ssi-events", "--node", "n"), ["n1", "n2"])

    def test_commands(self):
        self.assertEqual(self.complete("ssi", ""), ["doctor", "help", "version"])
        self.assertIn("init", self.complete("ssi-admin", ""))

    def test_the_program_of_a_run(self):
        self.assertIn("true", self.complete("ssi-run", "--node", "n1", "tru"))


if __name__ == "__main__":
    unittest.main()
