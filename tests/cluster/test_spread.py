"""Programs of a spread application begin on other nodes, and nobody in it can tell."""
import hashlib
import json
import os
import re
import signal
import subprocess
import time

import lab
from beats import Beats
from lab import PROGRAMS, until

N_JOBS = 60
# Lua as Debian has it; setup/setup gets it.
PROJECT = "/usr/local/lib/ssi/tests/lua"


def jobs(milliseconds=60):
    return f"seq {N_JOBS} | xargs -P 8 -I @ {PROGRAMS}/burn {milliseconds} @"


class Spread(Beats):
    def spread(self, *command, node="n1", cwd="/shared/work", **more):
        return self.lab.run(node, "ssi-run", "--spread", *command, cwd=cwd, **more)

    def check_jobs(self, r):
        """Each of the jobs has run once; where they ran."""
        self.assertEqual((r.status, r.err), (0, b""), r)
        lines = [line.split() for line in r.text.splitlines()]
        self.assertEqual(sorted(int(word) for word, _ in lines), list(range(1, N_JOBS + 1)))
        self.nothing_is_left()
        return [node for _, node in lines]

    def test_a_program_inherits_elsewhere_what_it_does_here(self):
        for user in ["ssi", "root"]:
            plain = self.lab.run("n1", "ssi-run", f"{PROGRAMS}/heir", "plain", cwd="/shared/work",
                                 user=user)
            spread = self.spread(f"{PROGRAMS}/heir", "where", user=user)
            self.assertEqual((plain.status, plain.err), (11, b""), plain)
            self.assertEqual((spread.status, spread.err), (11, b""), spread)
            self.assertEqual(spread.text, plain.text)
            where = dict(line.rsplit(" ", 1) for line in
                         self.lab.run("n1", "cat", "/shared/work/where").text.splitlines())
            away = {what for what, node in where.items() if node != "n1"}
            # What shares a descriptor's offset stays; else these have been elsewhere.
            self.assertGreaterEqual(away, {"inherit", "family", "leader", "signal parent", "stop",
                                           "alarm", "pending", "nest", "append", "exit 255", "kill 15",
                                           "grandchild"}, where)
            self.lab.run("n1", "rm", "/shared/work/where", "/shared/work/plain", user=user)
            self.nothing_is_left()

    def test_jobs_go_where_there_is_room(self):
        where = self.check_jobs(self.spread("sh", "-c", jobs()))
        self.assertEqual(set(where), {"n1", "n2", "n3"})
        self.assertGreaterEqual(len([node for node in where if node != "n1"]), N_JOBS // 2, where)

    def test_make_builds_the_same_on_three_nodes_as_on_one(self):
        if not os.path.isdir(PROJECT):
            self.skipTest(f"there is no {PROJECT}: setup/setup --tests could not get it")
        tar = subprocess.run(["tar", "c", "-C", PROJECT, "."], check=True, stdout=subprocess.PIPE).stdout
        self.lab.run("n1", "sh", "-c", "mkdir lua && tar x -C lua", cwd="/shared/work", input=tar, check=True)
        there = "/shared/work/lua/src"
        # Its compiler, which says where it is.
        self.lab.run("n1", "sh", "-c", "mkdir bin && printf '#!/bin/sh\nuname -n >>/shared/work/lua/where\n"
                     "exec /usr/bin/gcc \"$@\"\n' >bin/gcc && chmod 755 bin/gcc", cwd=there, check=True)
        make = ["env", f"PATH={there}/bin:/usr/bin:/bin", "make", "-s", "-j8", "linux-noreadline"]
        made = "sha256sum *.o *.a lua luac"
        r = self.lab.run("n1", *make, cwd=there, timeout=300)
        self.assertEqual(r.status, 0, r)
        plain = self.lab.run("n1", "sh", "-c", f"{made} && make -s clean && rm ../where", cwd=there, check=True).text
        r = self.spread(*make, cwd=there, timeout=300)
        self.assertEqual(r.status, 0, r)
        self.assertEqual(self.lab.run("n2", "sh", "-c", made, cwd=there).text, plain)
        where = self.lab.run("n1", "cat", "../where", cwd=there).text.split()
        self.assertGreater(len(where), 30)
        self.assertGreaterEqual(len([node for node in where if node != "n1"]), len(where) // 2, where)
        # A broken file stops it, with the compiler's own words.
        self.lab.run("n1", "sh", "-c", "echo 'int broken(' >>lapi.c", cwd=there, check=True)
        r = self.spread(*make, cwd=there, timeout=300)
        self.assertEqual(r.status, 2, r)
        self.assertRegex(r.err.decode(), r"lapi\.c:\d+:\d+: error")
        self.assertRegex(r.err.decode(), r"make\S*: \*\*\* .*lapi\.o")
        self.nothing_is_left()

    # So that there is room elsewhere only; $p are their PIDs.
    BURN = f"for i in 1 2 3 4; do {PROGRAMS}/burn 60000 x >/dev/null & p=\"$p $!\"; done; sleep 1; "

    N_STAGES = 6

    def pipeline(self, source):
        """A shell's words: what @source writes through stages, each of which says where it is."""
        stage = "sh -c 'uname -n >>where; exec cat' | "
        return (f"{self.BURN}rm -f where; set -o pipefail; {source} | {stage * self.N_STAGES}"
                "sha256sum; echo status $?; kill $p")

    def where(self):
        return self.lab.run("n1", "cat", "where", cwd="/shared/work").text.split()

    def check_pipeline(self, r, times, count):
        """The numbers to @count have come through so many times."""
        text = "".join(f"{k}\n" for k in range(1, count + 1)).encode()
        whole = hashlib.sha256()
        for _ in range(times):
            whole.update(text)
        self.assertEqual((r.status, r.text), (0, f"{whole.hexdigest()}  -\nstatus 0\n"), r)
        self.nothing_is_left()

    def test_stages_of_a_pipeline_run_where_there_is_room(self):
        self.check_pipeline(self.spread("bash", "-c", self.pipeline("seq 3000000")), 1, 3000000)
        self.assertEqual(len(self.where()), self.N_STAGES)
        self.assertGreaterEqual(set(self.where()), {"n2", "n3"}, self.where())

    def test_a_pipeline_ends_as_it_does_on_one_node(self):
        # Whoever writes gets SIGPIPE when the reader elsewhere has ended, and not before.
        r = self.spread("bash", "-c", f"{self.BURN}yes | sh -c 'uname -n; exec head -n 3'; "
                        "echo ${PIPESTATUS[*]}; kill $p")
        self.assertEqual(r.text.splitlines()[1:], ["y", "y", "y", "141 0"], r)
        self.assertNotEqual(r.text.splitlines()[0], "n1", r)
        # What a program does not read is left for the next one.
        r = self.spread("bash", "-c", f"{self.BURN}printf 123456 | (dd bs=1 count=2 status=none; "
                        "echo; cat); kill $p")
        self.assertEqual(r.text, "12\n3456", r)
        self.nothing_is_left()

    def test_no_byte_of_a_pipeline_is_lost_when_ssid_is_killed(self):
        source = "{ n=0; until [ -e stop ]; do seq 20000; n=$((n+1)); done; echo $n >sent; rm stop; }"
        for nodes in [["n1"], ["n2", "n3"]]:
            running = self.start("n1", "ssi-run", "--spread", "bash", "-c", self.pipeline(source),
                                 cwd="/shared/work")
            until(lambda: len(self.where()) == self.N_STAGES)
            for _ in range(3):
                killed = {node: self.lab.kill_ssid(node) for node in nodes}
                for node, old in killed.items():
                    self.await_successor(node, old)
            self.lab.run("n1", "touch", "stop", cwd="/shared/work", check=True)
            r = running.result(120)
            times = int(self.lab.run("n1", "cat", "sent", cwd="/shared/work").text)
            self.check_pipeline(r, times, 20000)

    def test_what_is_a_nodes_own_keeps_a_program_there(self):
        self.lab.run("n1", "touch", "/tmp/file", check=True)
        for command in ["cd /tmp && uname -n", "uname -n </etc/passwd", "sleep 0.5 | (uname -n; cat)",
                        "cat /proc/sys/kernel/hostname /tmp/file"]:
            r = self.spread("sh", "-c", f"{self.BURN}({command}); kill $p; exit 0")
            self.assertEqual((r.status, r.text.split()[-1:]), (0, ["n1"]), f"{command}: {r}")
        r = self.spread("sh", "-c", f"{self.BURN}uname -n; kill $p; exit 0")
        self.assertIn(r.text, ["n2\n", "n3\n"])
        self.nothing_is_left()

    def test_a_shell_kills_its_jobs_wherever_they_are(self):
        # The first end interrupts what it is doing about the next: dash handles SIGCHLD without SA_RESTART.
        r = self.spread("dash", "-c", f"for n in 1 2 3 4 5 6 7 8; do p=; {self.BURN}"
                        "kill $p || exit 9; wait; done")
        self.assertEqual((r.status, r.err), (0, b""), r)
        self.nothing_is_left()

    def forked(self, *words):
        """What the children of a program say that has only forked them: {number: (node, result)}; whole."""
        r = self.spread(*words, f"{PROGRAMS}/distant_fork", "6", "250", timeout=120)
        self.assertEqual(r.status, 0, r)
        *lines, last = r.text.splitlines()
        self.assertEqual(last, "6 of 6", r)
        self.nothing_is_left()
        return {int(number): (node, result) for number, node, result in map(str.split, lines)}

    def test_children_that_compute_go_where_there_is_room(self):
        there = self.forked()
        # Who may not stays, and has the same results.
        here = self.forked("sh", "-c", 'ssi-capset -DISTANT_FORK && exec "$@"', "sh")
        self.assertEqual({node for node, _ in here.values()}, {"n1"})
        self.assertEqual({k: result for k, (_, result) in there.items()}, {k: result for k, (_, result) in here.items()})
        self.assertEqual(len(there), 6)
        self.assertGreaterEqual(len({node for node, _ in there.values()} - {"n1"}), 1, there)

    def test_a_child_that_cannot_move_computes_on(self):
        r = self.spread("python3", "-c", """
import fcntl, os, time
for k in range(4):
    if os.fork() == 0:
        fcntl.flock(os.open(f"lock.{k}", os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
        while time.process_time() < 1.5:
            pass
        os.write(1, os.uname().nodename.encode() + b"\\n")
        os._exit(k)
print(sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(4)))""")
        self.assertEqual((r.status, r.text, r.err), (0, "n1\n" * 4 + "[0, 1, 2, 3]\n", b""), r)
        self.nothing_is_left()

    def test_children_compute_on_when_ssid_is_killed(self):
        running = self.start("n1", "ssi-run", "--spread", f"{PROGRAMS}/distant_fork", "6", "400")
        for node in ["n1", "n2", "n1", "n3"]:
            time.sleep(1)
            self.await_successor(node, self.lab.kill_ssid(node))
        r = running.result(120)
        self.assertEqual((r.status, r.text.splitlines()[-1], len(r.text.splitlines())), (0, "6 of 6", 7), r)
        self.nothing_is_left()

    def test_a_job_can_be_signalled_and_comes_home(self):
        running = self.start("n1", "ssi-run", "--spread", "-o", "@ID@", "sh", "-c",
                             f"for i in 1 2 3; do ({PROGRAMS}/burn 120000 $i; echo $i ended $?) & done; wait",
                             cwd="/shared/work")

        def away():
            return [p for p in self.lab.processes().values()
                    if "burn" in p["command"] and p["node"] != "n1" and p["home"] == "n1"
                    and "sh -c" not in p["command"]]
        job = until(away)[0]
        # Who has a child elsewhere is told so, and stays.
        self.assert_result(self.lab.run("n1", "ssi-migrate", str(running.app()), "n2"), 5,
                           r"a child of \d+: runs on another node")
        r = self.lab.run("n3", "ssi-migrate", "--json", str(job["pid"]), "n1")
        self.assertEqual(r.status, 0, r)
        self.assertEqual(json.loads(r.text)["to"], "n1")
        self.assertEqual(self.lab.where(int(job["pid"])), "n1")
        for p in self.lab.processes().values():
            if p["command"].startswith(f"{PROGRAMS}/burn"):
                self.lab.run("n2", "ssi-run", "--node", p["node"], "kill", "-TERM", str(p["pid"]), check=True)
        r = running.result(30)
        self.assertEqual(sorted(r.text.splitlines()), [f"{k} ended 143" for k in (1, 2, 3)], r)
        self.nothing_is_left()

    def test_a_family_over_three_nodes_is_drawn_as_one(self):
        # Each job says who its parent is, and has a child, which begins where the job is.
        self.lab.run("n1", "sh", "-c", "cat >/shared/work/job.py", input="""
import os
print(os.getpid(), os.getppid(), flush=True)
child = os.fork()
while not os.path.exists("/shared/work/go"):
    sum(range(10000))
if not child:
    os._exit(0)
os.waitpid(child, 0)
""", check=True)
        python = self.lab.run("n1", "readlink", "-f", "/usr/bin/python3", check=True).text.strip()
        # One after the other, so that those before are seen to be busy.
        running = self.start("n1", "ssi-run", "--spread", "-o", "@ID@", "sh", "-c",
                             "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done | "
                             f"xargs -P 6 -I @ {python} /shared/work/job.py @; true", cwd="/shared/work")
        app = running.app()

        def tree():
            r = self.lab.run("n3", "ssi-ps", "--tree", "--json", "--app", str(app), check=True)
            return json.loads(r.text)["processes"]

        def children(p):
            return p.get("children", [])

        def drawn():
            """The jobs, when all stand below the one root, each with its child."""
            roots = tree()
            jobs = [job for r in roots for x in children(r) if "xargs" in x["command"] for job in children(x)]
            whole = [r["pid"] for r in roots] == [app] and len(jobs) == 6 and all(children(job) for job in jobs)
            return jobs if whole else None
        running.expect(r"(^\d+ \d+\n){6}", 60)
        jobs = until(drawn, 20, tree)
        self.assertEqual({job["node"] for job in jobs}, {"n1", "n2", "n3"}, jobs)
        for job in jobs:
            self.assertEqual({c["node"] for c in children(job)}, {job["node"]}, job)
        said = dict(line.split() for line in running.read().decode().splitlines())
        self.assertEqual(said, {str(job["pid"]): str(job["ppid"]) for job in jobs})
        text = self.lab.run("n2", "ssi-ps", "--tree", "--app", str(app), check=True).text
        self.assertEqual(len(re.findall(rf" n[23] .* [├└]─{python} ", text)),
                         2 * len([job for job in jobs if job["node"] != "n1"]), text)
        self.lab.run("n1", "touch", "/shared/work/go", check=True)
        self.assertEqual(running.result(30).status, 0)
        self.lab.run("n1", "rm", "/shared/work/go", "/shared/work/job.py", check=True)
        self.nothing_is_left()

    def test_nobody_notices_that_ssid_is_killed(self):
        for nodes in [["n1"], ["n2", "n3"]]:
            running = self.start("n1", "ssi-run", "--spread", "sh", "-c", jobs(400), cwd="/shared/work")
            for _ in range(3):
                running.expect(r"^\d+ n", start=len(running.read()))
                killed = {node: self.lab.kill_ssid(node) for node in nodes}
                for node, old in killed.items():
                    self.await_successor(node, old)
            self.check_jobs(running.result(120))

    def test_ssid_may_die_at_each_step(self):
        points = [("n1", "placement.asked"), ("n1", "placement.left"),
                  ("n2", "placement.ready"), ("n2", "placement.committed")]
        for node, point in points:
            with self.subTest(point):
                old = self.ssid_of(node)
                self.arm(node, point, "kill")
                running = self.start("n1", "ssi-run", "--spread", "sh", "-c", jobs(), cwd="/shared/work")
                self.await_successor(node, old)
                self.check_jobs(running.result(120))

    def test_a_lost_node_takes_its_jobs_only(self):
        running = self.start("n1", "ssi-run", "--spread", "sh", "-c",
                             f"for i in 1 2 3 4 5 6; do ({PROGRAMS}/burn 4000 $i; echo job $i status $?) & done; "
                             "wait", cwd="/shared/work")

        def lost_ones():
            return [p for p in self.lab.processes().values()
                    if p["command"].startswith(f"{PROGRAMS}/burn") and p["node"] == "n2"]
        jobs = until(lost_ones)
        self.lab.command("kill", "n2")
        r = running.result(120)
        self.lab.command("start", "n2")
        status = dict(re.findall(r"^job (\d) status (\d+)$", r.text, re.MULTILINE))
        self.assertEqual(len(status), 6, r)
        killed = {job["command"].split()[-1] for job in jobs}
        self.assertEqual({k for k, v in status.items() if v == str(128 + signal.SIGKILL)}, killed, r)
        self.assertEqual({v for k, v in status.items() if k not in killed}, {"0"}, r)
        self.lab.settle()


lab.main()
