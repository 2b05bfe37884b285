"""With a CRIU that has none of our patches, programs move, are saved and revived all the same."""
import json
import os

import lab
from lab import PROGRAMS, until

CRIU = "/usr/local/lib/ssi/criu-plain/sbin/criu"
CAP_SYS_RESOURCE = 24
PRIVATE = "/run/ssi/private"


def numbers(first, last):
    return "".join(f"{k}\n" for k in range(first, last + 1)).encode()


class PlainCriu(lab.Tests):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for node in cls.lab.nodes:
            cls.lab.run(node, "sh", "-c", f"mkdir -p /etc/ssi/ssid.conf.d && printf '[paths]\\ncriu = {CRIU}\\n' "
                        ">/etc/ssi/ssid.conf.d/criu.conf", user="root", check=True)
            old = cls.lab.kill_ssid(node)
            until(lambda n=node, o=old: cls.ssid_of(n) not in ("", o))
        cls.lab.settle()
        # A new ssid asks its CRIU what it can do.
        for node in cls.lab.nodes:
            until(lambda n=node: "lacks patches" in cls.lab.logs(n))

    @classmethod
    def ssid_of(cls, node):
        return cls.lab.run(node, "cat", "/run/ssi/ssid.pid", user="root").text.strip()

    def may_set_limits(self, node="n1"):
        text = self.lab.run(node, "grep", "CapEff", f"/proc/{self.ssid_of(node)}/status",
                            user="root", check=True).text
        return bool(int(text.split()[1], 16) >> CAP_SYS_RESOURCE & 1)

    def private(self, node):
        """What lies in the private tmpfs: directories of dumps and images, and how much."""
        text = self.lab.run(node, "sh", "-c", f"ls {PRIVATE}; df -k --output=used {PRIVATE} | tail -n 1",
                            user="root", check=True).text.split()
        return [name for name in text[:-1] if "." in name], int(text[-1])

    def assert_nothing_left(self, nodes=None):
        for node in nodes or self.lab.nodes:
            until(lambda n=node: self.private(n)[0] == [], 20,
                  lambda n=node: f"{n}: {self.private(n)} is left")
            self.assertLess(self.private(node)[1], 1024)

    def count(self, n, **more):
        running = self.start("n1", "ssi-run", "-o", "@ID@", f"{PROGRAMS}/count", str(n), "5000",
                             "42", **more)
        running.expect("^20$")
        return running, running.app()

    def move(self, pid, target, status=0, user="root"):
        r = self.lab.run("n3", "ssi-migrate", str(pid), target, user=user)
        self.assertEqual(r.status, status, r)
        return r

    def beat(self, megabytes):
        beats = f"/shared/work/beats.{os.urandom(4).hex()}"
        running = self.start("n1", "ssi-run", "-o", "@ID@", f"{PROGRAMS}/beat", beats,
                             str(megabytes), user="root")
        pid = running.app()

        def heard():
            text = self.lab.run("n1", "cat", beats, user="root").text
            return [int(line.split()[0]) for line in text.split("\n")[:-1]]

        until(lambda: len(heard()) > 3)
        return pid, heard

    def assert_goes_on(self, heard, where="n1"):
        """One copy, there, and its beats have no gap."""
        start = len(heard())
        until(lambda: len(heard()) > start + 5)
        beats = heard()
        self.assertTrue(beats == list(range(1, len(beats) + 1)), "a beat was doubled or lost")
        self.assertEqual([node for node, _ in self.lab.copies("beat")], [where])

    def test_the_doctor_says_what_is_off(self):
        r = self.lab.run("n1", "ssi", "doctor", "--json", user="root")
        rows = {row["check"]: row for row in json.loads(r.text)["checks"]}
        self.assertIn(CRIU, rows["criu"]["detail"])
        self.assertEqual(rows["criu check"]["state"], "ok")
        self.assertEqual(rows["criu streams"]["state"], "warn")
        self.assertEqual(rows["criu leaves pages"]["state"], "warn")
        self.assertEqual(rows["criu restore in place"]["state"], "missing")
        self.assertEqual(rows["criu users' processes"]["state"],
                         "ok" if self.may_set_limits() else "missing")

    def test_roots_program_moves_from_node_to_node_and_home(self):
        running, pid = self.count(600, user="root")
        for target in ["n2", "n3", "n1", "n2"]:
            self.move(pid, target)
            self.assertEqual(self.lab.where(pid), target)
        r = running.result(30)
        self.assertEqual((r.status, r.err), (42, b""))
        self.assertTrue(r.out == numbers(1, 600), r)
        self.assert_nothing_left()

    def test_roots_program_is_saved_and_revived(self):
        running, pid = self.count(300, user="root")
        r = self.lab.run("n2", "ssi-checkpoint", "--json", "--kill", str(pid), user="root")
        self.assertEqual(r.status, 0, r)
        name = json.loads(r.text)["name"]
        before = running.result(10)
        self.assertEqual(before.status, 137, before)
        r = self.lab.run("n2", "ssi-restart", "--on", "n3", name, user="root")
        self.assertEqual(r.status, 42, r)
        self.assertTrue(before.out + r.out == numbers(1, 300), (before.out[-20:], r.out[:20]))
        self.assert_nothing_left()

    def test_an_ordinary_users_program_moves_or_is_refused_by_name(self):
        running, pid = self.count(600)
        if self.may_set_limits():
            self.move(pid, "n2", user=lab.USER)
            self.assertEqual(self.lab.where(pid), "n2")
        else:
            for tool, more in [("ssi-migrate", ["n2"]), ("ssi-migrate", ["--dry-run", "n2"]),
                               ("ssi-checkpoint", [])]:
                options, rest = more[:-1], more[-1:]
                r = self.lab.run("n1", tool, *options, str(pid), *rest)
                self.assert_result(r, 5, rf"^{tool}: .*{pid} \(count\).*CAP_SYS_RESOURCE.*setup/criu")
        r = running.result(30)
        self.assertEqual((r.status, r.err), (42, b""))
        self.assertTrue(r.out == numbers(1, 600), r)
        self.assert_nothing_left()

    def test_a_child_leaves_its_parent_and_is_not_brought_back(self):
        running = self.start("n1", "ssi-run", "-o", "@ID@", f"{PROGRAMS}/family", user="root")
        child = int(running.expect(r"^child (\d+)$")[1])
        for target in ["n2", "n3"]:
            self.move(child, target)
        r = self.move(child, "n1", status=5)
        self.assertRegex(r.err.decode(), rf"^ssi-migrate: .*{child} has its parent there.*ssi doctor.*\n$")
        self.assertEqual(self.lab.where(child), "n3")
        running.ask("look", "^events 0 wait 0 0 0$")
        self.move(child, "n2")
        running.ask("look", "^events 0 wait 0 0 0$")

    def survive(self, kill):
        """ssid of n1 dies in the middle of a move of 64 MiB, by kill(move)."""
        pid, heard = self.beat(64)
        old = self.ssid_of("n1")
        move = self.start("n3", "ssi-migrate", str(pid), "n2", user="root")
        kill(move)
        until(lambda: self.ssid_of("n1") not in ("", old), 20, lambda: "no new ssid on n1")
        self.lab.settle()
        r = move.result(45)
        self.assertNotEqual(r.status, 0, "it was moved before ssid died")
        self.assertRegex(r.err.decode(), r"^ssi-migrate: .{10,}\n$")
        self.assert_goes_on(heard)
        # The target, which nobody told, waits for more images a while.
        self.assert_nothing_left(["n1"])
        # And as if nothing had been.
        until(lambda: self.lab.run("n3", "ssi-migrate", str(pid), "n2", user="root").status == 0)
        self.assert_goes_on(heard, "n2")

    def test_ssid_dies_when_all_images_stand_in_memory(self):
        self.lab.run("n1", "ssi-admin", "fault", "checkpoint.written", "kill", user="root", check=True)
        self.survive(lambda move: None)

    def test_ssid_dies_while_criu_writes_images(self):
        def kill(move):
            self.lab.run("n1", "sh", "-c", f"until [ $(df -k --output=used {PRIVATE} | tail -n 1) -gt 4096 ]; "
                         "do :; done; kill -9 $(cat /run/ssi/ssid.pid)", user="root", check=True)
        self.survive(kill)

    def test_images_that_do_not_fit_are_refused_and_the_program_runs_on(self):
        pid, heard = self.beat(64)
        self.lab.run("n1", "mount", "-o", "remount,size=32m", PRIVATE, user="root", check=True)
        self.addCleanup(self.lab.run, "n1", "mount", "-o", "remount,size=50%", PRIVATE, user="root")
        for tool, where in [("ssi-migrate", ["n2"]), ("ssi-checkpoint", [])]:
            r = self.lab.run("n1", tool, str(pid), *where, user="root")
            self.assert_result(r, 5, rf"^{tool}: .*no room for its images.*ssi doctor")
            self.assert_goes_on(heard)
            self.assert_nothing_left()


if os.access(CRIU, os.X_OK):
    lab.main()
else:
    print(f"1..0 # SKIP {CRIU} is not there: run setup/setup --tests")
