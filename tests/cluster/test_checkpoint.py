"""What was saved goes on where it was, once, and only for whom it belongs to."""
import json
import re
import time

import lab
from lab import PROGRAMS, until

STORE = "/shared/checkpoints"


def numbers(first, last):
    return "".join(f"{k}\n" for k in range(first, last + 1)).encode()


class Checkpoint(lab.Tests):
    def count(self, n=300, node="n1", file="/shared/work/counted", **more):
        """A counter, some lines on its way; (running, pid)."""
        running = self.start(node, "ssi-run", "-o", "@ID@", f"{PROGRAMS}/count", str(n), "5000",
                             "42", file, **more)
        running.expect("^20$")
        return running, running.app()

    def save(self, pid, *options, node="n2", status=0, **more):
        r = self.lab.run(node, "ssi-checkpoint", "--json", *options, str(pid), **more)
        self.assertEqual(r.status, status, r)
        if status:
            return r
        report = json.loads(r.text)
        self.assertEqual(report["version"], 1)
        self.assertRegex(report["name"], rf"^{pid}-\d{{8}}T\d{{6}}\.\d{{3}}$")
        self.assertGreater(report["bytes"], 0)
        return report["name"]

    def killed(self, running, pid, *options):
        """Save and kill; (name, what it had written)."""
        name = self.save(pid, "--kill", *options)
        r = running.result(10)
        self.assertEqual((r.status, r.err), (137, b""))
        self.assertEqual(self.lab.copies("count"), [])
        return name, r.out

    def restart(self, name, *options, node="n1", timeout=30, **more):
        return self.lab.run(node, "ssi-restart", *options, str(name), timeout=timeout, **more)

    def file(self, path="/shared/work/counted"):
        return self.lab.run("n1", "cat", path, user="root").out

    def check_end(self, r, before, n=300):
        """It ended well, and went on exactly where it was."""
        self.assertEqual(r.status, 42, r)
        self.assertRegex(r.err.decode(), r"^ssi-restart: \d+ is back\n$")
        self.assertTrue(before + r.out == numbers(1, n), (before[-40:], r.out[:40]))
        self.assertTrue(self.file() == numbers(1, n), self.file()[-80:])

    def test_a_saved_program_goes_on_and_a_revived_one_from_where_it_was(self):
        running, pid = self.count()
        name = self.save(pid, "--leave-running")
        r = running.result(20)
        self.assertEqual((r.status, r.err), (42, b""))
        self.assertTrue(r.out == numbers(1, 300), r)
        until(lambda: pid not in self.lab.processes())
        for options, node in [([], "n1"), (["--on", "n3"], "n2"), (["--on", "n1"], "n3")]:
            again = self.restart(name, *options, node=node)
            first = int(again.out.split(b"\n")[0])
            self.assertGreater(first, 20)
            self.assertLess(first, 300)
            self.check_end(again, numbers(1, first - 1))

    def test_a_saved_and_killed_program_loses_nothing_here(self):
        running, pid = self.count()
        name, before = self.killed(running, pid)
        self.check_end(self.restart(name), before)

    def test_a_saved_and_killed_program_loses_nothing_on_another_node(self):
        running, pid = self.count()
        _, before = self.killed(running, pid)
        # By its application: the newest.
        self.check_end(self.restart(pid, "--on", "n2", node="n3"), before)

    def test_a_revived_program_has_its_pid_moves_and_is_saved_again(self):
        running, pid = self.count(n=1000)
        _, before = self.killed(running, pid)
        again = self.start("n1", "ssi-restart", "--on", "n2", str(pid))
        again.expect("^2..$")
        self.assertEqual(self.lab.where(pid), "n2")
        self.assertEqual(self.lab.run("n1", "ssi-migrate", str(pid), "n3").status, 0)
        again.expect("^3..$")
        name = self.save(pid, "--kill", node="n1")
        r = again.result(10)
        self.assertEqual(r.status, 137)
        self.check_end(self.restart(name, node="n3"), before + r.out, 1000)

    def test_a_program_with_everything_is_saved_and_revived(self):
        running = self.start("n1", "sh", "-c", "umask 037; ulimit -n 333; exec nice -n 3 "
                             f"ssi-run -o @ID@ {PROGRAMS}/journey .", cwd="/shared/work")
        match = running.expect(r"^journey (\d+) child (\d+)$")
        pid, child = int(match[1]), int(match[2])
        running.expect("^tick 10$")
        text = b""
        for k, node in enumerate(["n2", "n1", "n3"]):
            self.save(pid, "--kill")
            r = running.result(10)
            self.assertEqual(r.status, 137)
            text += r.out
            self.assertEqual(self.lab.copies("journey"), [])
            running = self.start("n1", "ssi-restart", "--on", node, str(pid))
            running.ask(f"line {k}", f"^echo line {k}$")
            ps = self.lab.processes()
            self.assertEqual((ps[pid]["node"], ps[child]["node"], int(ps[child]["ppid"])),
                             (node, node, pid))
        running.close_input()
        r = running.result(20)
        self.assertEqual(r.status, 42, r)
        lines = (text + r.out).decode().splitlines()
        ticks = [line for line in lines if line.startswith("tick ")]
        self.assertEqual(ticks, [f"tick {k}" for k in range(len(ticks))])
        self.assertEqual([line for line in lines if not line.startswith("tick ")],
                         [f"journey {pid} child {child}", "echo line 0", "echo line 1",
                          "echo line 2", "done"])

    def test_a_restart_is_refused_while_it_runs(self):
        running, pid = self.count(n=100000)
        name = self.save(pid)
        for options in [[], ["--on", "n1"], ["--on", "n3"]]:
            self.assert_result(self.restart(name, *options), 6, "ssi-restart: .*")
        last = int(running.read().split()[-1])
        running.expect(f"^{last + 20}$")
        self.assertEqual([node for node, _ in self.lab.copies("count")], ["n1"])
        self.lab.run("n1", "ssi-run", "kill", str(pid), check=True)
        r = running.result(10)
        self.assertEqual(r.status, 143)
        n = len(r.out.splitlines())
        self.assertTrue(r.out == numbers(1, n))
        self.assertIn(self.file(), [numbers(1, n), numbers(1, n - 1)])

    def test_another_user_may_neither_save_nor_revive(self):
        running, pid = self.count()
        r = self.save(pid, status=3, user="other")
        self.assertEqual(r.err.count(b"\n"), 1)
        name, before = self.killed(running, pid)
        for options in [[], ["--on", "n2"]]:
            r = self.restart(name, *options, user="other")
            self.assert_result(r, 3, "ssi-restart: .*")
        # Nor with a copy of his own, if he got hold of one.
        self.lab.run("n1", "sh", "-c", f"mkdir -m 755 /shared/work/stolen; cp -r {STORE}/{name} "
                     "/shared/work/stolen; chown -R other: /shared/work/stolen", user="root",
                     check=True)
        r = self.restart(name, "--dir", "/shared/work/stolen", user="other")
        self.assert_result(r, 3, "user")
        r = self.lab.run("n1", "ssi-checkpoint", "--rm", name, user="other")
        self.assertNotEqual(r.status, 0)
        self.assertEqual(self.lab.copies("count"), [])
        self.check_end(self.restart(name), before)

    def test_what_the_user_may_not_look_into_he_may_not_save(self):
        running = self.start("n1", "ssi-run", "-o", "@ID@", "python3", "-c",
                             "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n"
                             "print('secret', flush=True); input()")
        running.expect("^secret$")
        pid = running.app()
        self.assert_result(self.save(pid, status=3), 3, "not yours to look into")
        self.save(pid, user="root")
        # It moves all the same: nobody sees it on the way.
        self.assertEqual(self.lab.run("n3", "ssi-migrate", str(pid), "n2").status, 0)

    def test_list_inspect_and_rm(self):
        running, pid = self.count(n=2000)
        name = self.save(pid, "-d", "a line to remember")
        for node in self.lab.nodes:
            listed = json.loads(self.lab.run(node, "ssi-checkpoint", "--list", "--json").text)
            mine = [c for c in listed["checkpoints"] if c["name"] == name]
            self.assertEqual(len(mine), 1, listed)
            c = mine[0]
            self.assertEqual((int(c["app"]), int(c["root"]), c["node"], int(c["user"]),
                              c["description"], c["problem"]),
                             (pid, pid, "n1", self.lab.uid, "a line to remember", None))
            self.assertIn("count 2000", c["command"])
            self.assertGreater(int(c["size"]), 1000)
        r = self.lab.run("n3", "ssi-checkpoint", "--inspect", name)
        self.assertEqual(r.status, 0, r)
        self.assertIn("/shared/work/counted", r.text)
        self.assertEqual(self.lab.run("n2", "ssi-checkpoint", "--rm", name).status, 0)
        listed = json.loads(self.lab.run("n1", "ssi-checkpoint", "--list", "--json").text)
        self.assertNotIn(name, [c["name"] for c in listed["checkpoints"]])
        self.assertEqual(self.lab.run("n1", "ls", STORE).text.count(name), 0)
        for arguments in [["--rm", name], ["--inspect", name]]:
            self.assert_result(self.lab.run("n1", "ssi-checkpoint", *arguments), 4, name)
        self.assert_result(self.restart(name), 4, name)
        running.ask("", "^...$")

    def test_a_directory_of_ones_own(self):
        self.lab.run("n1", "mkdir", "-m", "700", "/shared/work/mine", check=True)
        running, pid = self.count()
        name, before = self.killed(running, pid, "--dir", "/shared/work/mine")
        self.assertEqual(self.lab.run("n1", "ls", "/shared/work/mine").text, f"{name}\n")
        self.assertEqual(self.restart(name).status, 4)
        # Where only root may write, a user may not save.
        other, other_pid = self.count(file="/shared/work/second")
        self.lab.run("n1", "mkdir", "-m", "755", "/shared/roots", user="root", check=True)
        r = self.save(other_pid, "--dir", "/shared/roots", status=3)
        self.assertEqual(r.err.count(b"\n"), 1, r)
        self.assertEqual(self.lab.run("n1", "ls", "/shared/roots").text, "")
        self.check_end(self.restart(name, "--dir", "/shared/work/mine", "--on", "n2"), before)
        self.assertEqual(other.result(20).status, 42)

    def refuse(self, name, swap, because):
        """After a swap as root, nothing is revived and nothing left; then the file is back."""
        target = "/shared/work/counted"
        self.lab.run("n1", "sh", "-ec", f"mv {target} {target}.kept; echo secret >/shared/secret; "
                     f"chmod 600 /shared/secret; {swap}", user="root", check=True)
        before = time.monotonic()
        for options in [[], ["--on", "n2"]]:
            r = self.restart(name, *options)
            self.assertIn(r.status, [3, 5], (because, r))
            self.assertRegex(r.err.decode(), "/shared/work/counted", because)
            self.assertEqual((r.out, r.err.count(b"\n")), (b"", 1), because)
        self.assertLess(time.monotonic() - before, 20)
        self.assertEqual(self.lab.copies("count"), [], because)
        self.assertEqual(self.file("/shared/secret"), b"secret\n")
        self.lab.run("n1", "sh", "-ec", f"rm -rf {target} /shared/secret; mv {target}.kept {target}",
                     user="root", check=True)

    def test_files_that_were_swapped_are_refused(self):
        target = "/shared/work/counted"
        running, pid = self.count()
        name, before = self.killed(running, pid)
        for swap, because in [
                (f"ln -s /shared/secret {target}", "a symlink to a root file"),
                (f"ln /shared/secret {target}", "a hard link to a root file"),
                (f"mkfifo -m 666 {target}", "a FIFO"),
                (f"cp {target}.kept {target}", "another file of another owner"),
                (f"cp -p {target}.kept {target}", "another file"),
                (f"ln -s {target}.kept {target}", "a symlink to the file itself"),
                (f"mkdir {target}", "a directory"),
                ("true", "no file")]:
            self.refuse(name, swap, because)
        # The file itself, but no longer the user's.
        self.lab.run("n1", "sh", "-ec", f"chown root {target}; chmod 600 {target}", user="root",
                     check=True)
        self.assertIn(self.restart(name).status, [3, 5])
        self.lab.run("n1", "sh", "-ec", f"chown ssi {target}; chmod 640 {target}", user="root")
        self.assertIn(self.restart(name).status, [3, 5])
        self.lab.run("n1", "chmod", "644", target, user="root", check=True)
        self.assertEqual(self.lab.copies("count"), [])
        self.check_end(self.restart(name), before)

    def test_a_checkpoint_that_was_changed_is_refused(self):
        running, pid = self.count()
        name, before = self.killed(running, pid)
        path = f"{STORE}/{name}"
        flip = ('import sys; f = open(sys.argv[1], "r+b"); f.seek(0, 2); at = f.tell() // 2; '
                'f.seek(at); b = f.read(1); f.seek(at); f.write(bytes([b[0] ^ 1]))')
        files = self.lab.run("n1", "sh", "-c", f"cd {path} && find . -type f -size +0",
                             user="root").text.split()
        self.assertIn("./manifest", files)
        chosen = ["./manifest"] + sorted(f for f in files if re.search("core-|files|pages-", f))
        self.assertGreater(len(chosen), 3)
        for file in chosen:
            self.lab.run("n1", "python3", "-c", flip, f"{path}/{file}", user="root", check=True)
            r = self.restart(name)
            self.assert_result(r, 5, "ssi-restart: .*")
            self.assertEqual(self.lab.copies("count"), [], file)
            r = self.lab.run("n2", "ssi-checkpoint", "--inspect", name)
            self.assertEqual(r.status, 1, file)
            self.lab.run("n1", "python3", "-c", flip, f"{path}/{file}", user="root", check=True)
        # One that is short, one that is missing.
        for change in ["truncate -s -1 {0}", "rm {0}"]:
            file = f"{path}/{chosen[-1]}"
            self.lab.run("n1", "sh", "-ec", f"cp -p {file} /shared/kept; " + change.format(file),
                         user="root", check=True)
            self.assert_result(self.restart(name), 5, "ssi-restart: .*")
            self.lab.run("n1", "cp", "-p", "/shared/kept", file, user="root", check=True)
        self.assertEqual(self.lab.run("n1", "ssi-checkpoint", "--inspect", name).status, 0)
        self.check_end(self.restart(name), before)

    def test_a_full_directory_fails_cleanly(self):
        r = self.lab.run("n1", "ssi-run", "sh", "-c", "mkdir -p /tmp/full && mount -t tmpfs -o "
                         "size=64k,mode=1777 full /tmp/full", user="root")
        if r.status:
            self.skipTest(f"no file system can be mounted in the space: {r}")
        running, pid = self.count()
        for options in [[], ["--kill"]]:
            r = self.save(pid, "--dir", "/tmp/full", *options, status=1, node="n1")
            self.assertRegex(r.err.decode(), "(?i)space|full")
            self.assertEqual(r.err.count(b"\n"), 1, r)
            self.assertEqual(self.lab.run("n1", "ssi-run", "ls", "-A", "/tmp/full").text, "")
        r = running.result(20)
        self.assertEqual((r.status, r.out == numbers(1, 300)), (42, True))

    def test_what_cannot_be_saved_is_refused_by_name_and_runs_on(self):
        running = self.start("n1", "ssi-run", "-o", "@ID@", f"{PROGRAMS}/holder", "tcp")
        running.expect("^holding$")
        r = self.save(running.app(), status=5)
        self.assert_result(r, 5, "internet socket")
        running.ask("still", "^still$")

    def test_what_does_not_exist_is_4_and_what_makes_no_sense_2(self):
        self.assert_result(self.lab.run("n1", "ssi-checkpoint", "4000000"), 4, "4000000")
        self.assert_result(self.restart("4000000"), 4, "4000000")
        self.assert_result(self.lab.run("n1", "ssi-checkpoint", "--list", "--dir", "/nonexistent"), 4,
                           "/nonexistent")
        for name in ["../etc", "a/b", "", "."]:
            r = self.restart(name)
            self.assertIn(r.status, [2, 4], (name, r))
        for arguments in [[], ["1", "2"], ["7x"], ["--list", "--rm", "x"], ["--dir"]]:
            self.assertEqual(self.lab.run("n1", "ssi-checkpoint", *arguments).status, 2, arguments)
        self.assertEqual(self.lab.run("n1", "ssi-restart").status, 2)


lab.main()
