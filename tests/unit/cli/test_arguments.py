"""Wrong arguments, absent daemons: one line, the right exit code, at once."""

import json
import os
import socket
import subprocess
import tempfile
import unittest

from tools import ASKING, PAGES, path, run

WRONG = [
    ["ssi"], ["ssi", "nonsense"], ["ssi", "doctor", "twice"],
    ["ssi-run"], ["ssi-run", "--node"], ["ssi-run", "-o"], ["ssi-run", "--node", "", "true"],
    ["ssi-run", "--nodes", ",,", "true"],
    ["ssi-migrate", "--max-downtime", "0", "7", "n2"], ["ssi-migrate", "--max-downtime", "1s", "7", "n2"],
    ["ssi-ps", "one"], ["ssi-ps", "-5"], ["ssi-ps", "--app", "7x"], ["ssi-ps", "--app", ""], ["ssi-ps", "99999999999999999999"],
    ["ssi-nodes", "n1"], ["ssi-nodes", "--wait", "many"], ["ssi-nodes", "--wait", "-1"],
    ["ssi-events", "n1"], ["ssi-events", "--since", "yesterday"], ["ssi-events", "--since", "5x"],
    ["ssi-events", "--since", "-1"], ["ssi-events", "--since", ""], ["ssi-events", "--node"],
    ["ssi-migrate"], ["ssi-migrate", "70000"], ["ssi-migrate", "7x", "n1"], ["ssi-migrate", "", "n1"],
    ["ssi-migrate", "70000", "n1", "n2"], ["ssi-migrate", "70000000000", "n1"],
    ["ssi-capset", "7x"], ["ssi-capset", "0"], ["ssi-capset", "7", "8"], ["ssi-capset", "-k", "7", "8"],
    ["ssi-capset", "-e"], ["ssi-capset", "-e", "+NONSENSE"], ["ssi-capset", "+NONSENSE"], ["ssi-capset", "-NONSENSE"],
    ["ssi-capset", "-d", "8"], ["ssi-capset", "-CHANGE_KERRIGHED_CAP"], ["ssi-capset", "-e", "0"],
    ["ssi-checkpoint"], ["ssi-checkpoint", "7x"], ["ssi-checkpoint", "1", "2"],
    ["ssi-checkpoint", "--list", "70000"], ["ssi-checkpoint", "--list", "--rm", "a"],
    ["ssi-checkpoint", "--inspect"],
    ["ssi-restart"], ["ssi-restart", "a", "b"],
    ["ssi-admin"], ["ssi-admin", "nonsense"], ["ssi-admin", "init", "now"], ["ssi-admin", "join"],
    ["ssi-admin", "fault", "x", "explode"], ["ssi-admin", "--lifetime", "-1", "token"],
]


class Arguments(unittest.TestCase):
    def assert_usage(self, tool, result):
        lines = result.stderr.splitlines()
        self.assertEqual(result.returncode, 2, result)
        self.assertEqual(result.stdout, "")
        self.assertEqual(len(lines), 2, lines)
        self.assertTrue(lines[0].startswith(f"{tool}: "), lines)
        self.assertEqual(lines[1], f"Try '{tool} --help'.")

    def test_wrong_arguments_are_wrong_usage(self):
        for command in WRONG:
            with self.subTest(command=command):
                self.assert_usage(command[0], run(command))

    def test_unknown_options_and_values_are_wrong_usage(self):
        for tool in set(PAGES) - {"ssid", "ssi-lab"}:
            for options in [["--nonsense"], ["--timeout", "soon"], ["--timeout", ""],
                            ["--timeout", "-1"], ["--socket"]]:
                with self.subTest(tool=tool, options=options):
                    self.assert_usage(tool, run([tool], *options))
        for tool in ["ssid", "ssi-lab"]:
            with self.subTest(tool=tool):
                result = run([tool], "--nonsense")
                self.assertEqual(result.returncode, 2)
                self.assertTrue(result.stderr.startswith((f"{tool}: ", str(path(tool)))), result)

    def test_a_socket_path_that_is_too_long_is_wrong_usage(self):
        for command in ASKING:
            with self.subTest(command=command):
                self.assert_usage(command[0], run(command, "--socket", "/" + "x" * 200))

    def test_help_and_version_work_with_anything_behind_them(self):
        for tool in PAGES:
            for option in ["--help", "--version"]:
                with self.subTest(tool=tool, option=option):
                    result = run([tool], option)
                    self.assertEqual((result.returncode, result.stderr), (0, ""))
                    self.assertTrue(result.stdout)


    def test_what_cannot_be_printed_is_no_success(self):
        for tool in set(PAGES) - {"ssid", "ssi-lab"}:
            with self.subTest(tool=tool), open("/dev/full", "wb") as full:
                r = subprocess.run([path(tool), "--help"], stdout=full, stderr=subprocess.PIPE,
                                   check=False)
                self.assertEqual((r.returncode, r.stderr.decode()),
                                 (1, f"{tool}: standard output: No space left on device\n"))
        with self.subTest("closed"):
            r = subprocess.run(["sh", "-c", 'exec "$0" help >&-', path("ssi")],
                               stderr=subprocess.PIPE, check=False)
            self.assertEqual(r.returncode, 1, r)

    @unittest.skipUnless(os.geteuid() == 0, "needs root, who may found a cluster")
    def test_a_node_has_a_name_and_an_address_that_others_can_use(self):
        for k, (arguments, word) in enumerate([
                (["--node", "Upper", "--address", "10.0.0.1"], "Upper"),
                (["--node", "", "--address", "10.0.0.1"], "name"),
                (["--address", "10.0.0.1:0"], "port"), (["--address", "10.0.0.1:70000"], "port"),
                (["--address", "10.0.0.1:"], "port"), (["--address", "[::1"], "[::1"),
                (["--address", ":7777"], "address"), (["--address", "two words"], "two words"),
                (["--address", "localhost"], "itself")]):
            for command in [["init"], ["join", "SSI1-x"]]:
                with self.subTest(arguments=arguments, command=command), \
                        tempfile.TemporaryDirectory() as state:
                    r = run(["ssi-admin", *command, "--node", f"n{k}", *arguments, "--state",
                             f"{state}/ssi"])
                    self.assert_usage("ssi-admin", r)
                    self.assertIn(word, r.stderr)
                    self.assertEqual(os.listdir(state), [])

    @unittest.skipUnless(os.geteuid() == 0, "needs root, who may found a cluster")
    def test_an_address_is_kept_in_numbers(self):
        for given, kept in [("10.0.0.1", "10.0.0.1:7777"), ("10.0.0.1:9", "10.0.0.1:9"),
                            ("::1", "[::1]:7777"), ("[::1]", "[::1]:7777"), ("[::1]:9", "[::1]:9")]:
            with self.subTest(given), tempfile.TemporaryDirectory() as state:
                r = run(["ssi-admin", "-q", "init", "--node", "n1", "--address", given, "--state",
                         f"{state}/ssi"])
                self.assertEqual(r.returncode, 0, r)
                self.assertTrue(r.stdout.strip().endswith(f"-{kept}"), r)


class Absent(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.socket = os.path.join(directory.name, "ssid.sock")

    def assert_down(self):
        for command in ASKING:
            with self.subTest(command=command):
                result = run(command, "--timeout", "2", "--socket", self.socket)
                self.assertEqual(result.returncode, 8, result)
                self.assertEqual(result.stdout, "")
                self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
                self.assertIn(self.socket, result.stderr)
                self.assertIn("systemctl start ssid", result.stderr)

    def test_without_a_socket_the_cluster_is_down(self):
        self.assert_down()

    def test_with_a_socket_that_nobody_listens_at_the_cluster_is_down(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.socket)
            self.assert_down()

    def test_the_doctor_needs_no_daemon(self):
        result = run(["ssi", "doctor", "--json"], "--socket", self.socket, timeout=90)
        self.assertIn(result.returncode, (0, 5))
        self.assertEqual(result.stderr, "")
        report = json.loads(result.stdout)
        self.assertEqual(report["version"], 1)
        rows = {c["check"]: c for c in report["checks"]}
        self.assertEqual(rows["ssid"]["state"], "warn")
        self.assertEqual(rows["ssid"]["detail"], "not running")
        for row in rows.values():
            self.assertIn(row["state"], ("ok", "warn", "missing"))
            self.assertEqual(bool(row["remedy"]), row["state"] != "ok", row)
        missing = [r for r in rows.values() if r["needed"] and r["state"] == "missing"]
        self.assertEqual(result.returncode, 5 if missing else 0)

    def doctor(self, config):
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(config)
            file.flush()
            result = run(["ssi", "doctor", "--json"], "--socket", self.socket, "--config", file.name,
                         timeout=90)
        return result, {c["check"]: c for c in json.loads(result.stdout)["checks"]}

    def test_the_doctor_misses_a_criu_that_is_not_there(self):
        result, rows = self.doctor("[paths]\ncriu = /nonexistent/criu\n")
        self.assertEqual(result.returncode, 5)
        self.assertEqual(rows["criu"]["state"], "missing")
        self.assertIn("/nonexistent/criu", rows["criu"]["detail"])

    def test_the_doctor_says_what_an_unpatched_criu_cannot_do(self):
        # Whatever else it is: none of the patches is in.
        _, rows = self.doctor("[paths]\ncriu = /bin/true\n")
        rows = {name: row for name, row in rows.items() if name.startswith("criu ")}
        self.assertEqual(rows["criu streams"]["state"], "warn")
        self.assertEqual(rows["criu leaves pages"]["state"], "warn")
        self.assertEqual(rows["criu restore in place"]["state"], "missing")
        users = rows["criu users' processes"]
        with open("/proc/self/status", encoding="ascii") as status:
            bounding = next(int(l.split()[1], 16) for l in status if l.startswith("CapBnd:"))
        self.assertEqual(users["state"], "ok" if bounding >> 24 & 1 else "missing")
        for name, word in [("criu streams", "memory"), ("criu leaves pages", "memory"),
                           ("criu restore in place", "parent"),
                           ("criu users' processes", "root's")]:
            self.assertFalse(rows[name]["needed"], name)
            if rows[name]["state"] != "ok":
                self.assertIn(word, rows[name]["remedy"])
                self.assertIn("setup/criu", rows[name]["remedy"])

    def test_the_doctor_does_not_take_a_script_for_an_unpatched_criu(self):
        with tempfile.NamedTemporaryFile("w", suffix="-criu", delete=False) as file:
            file.write("#!/bin/sh\necho 'Version: 1.0'\necho 'Looks \033bad.' >&2\n")
        self.addCleanup(os.unlink, file.name)
        os.chmod(file.name, 0o755)
        result, rows = self.doctor(f"[paths]\ncriu = {file.name}\n")
        for name in ["criu streams", "criu leaves pages", "criu restore in place",
                     "criu users' processes"]:
            self.assertEqual(rows[name]["state"], "warn", name)
            self.assertIn("script", rows[name]["detail"])
        self.assertNotIn("\\u001b", result.stdout)

    def test_the_doctor_says_that_a_configuration_cannot_be_used(self):
        result, rows = self.doctor("[paths]\ncriu = relative\n")
        self.assertEqual(result.returncode, 5)
        self.assertEqual(rows["configuration"]["state"], "missing")

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to become somebody else")
    def test_the_doctor_of_an_ordinary_user_says_what_only_root_sees(self):
        # The build directory may be out of an ordinary user's reach: by descriptor.
        fd = os.open(path("ssi"), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        result = subprocess.run(
            [f"/proc/self/fd/{fd}", "doctor", "--json", "--socket", self.socket], pass_fds=[fd],
            capture_output=True, text=True, user=65534, group=65534, extra_groups=[], cwd="/",
            timeout=90, check=False)
        rows = {c["check"]: c for c in json.loads(result.stdout)["checks"]}
        self.assertEqual(rows["namespaces"]["state"], "warn")
        self.assertIn("only root", rows["namespaces"]["detail"])


if __name__ == "__main__":
    unittest.main()
