"""The wall clocks of nodes step by an hour, forth and back: nobody decides by them.

All nodes share the machine's clock, so each gets one of its own by programs/clock.c: what is read
from it has stepped.  The other thing that a step does, to end or to stretch a wait for a time of
that clock, cannot happen to who does not wait so, which the last test looks at.
"""
import json
import re
import time

import beats
import lab
from lab import PROGRAMS, until

HOUR = 3600
# A lock with a deadline, or a sleep until then.
WAIT = re.compile(r"^.*(FUTEX_CLOCK_REALTIME, \d+, {|clock_nanosleep\(CLOCK_REALTIME, TIMER_ABS).*$", re.M)
# Timers by their descriptors, and others; 0 is CLOCK_REALTIME.
TIMERS = "cat /proc/$1/fdinfo/* /proc/$1/timers | grep -i '^clockid:' | sort | uniq -c"


class Clocks(beats.Beats):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for node in cls.lab.nodes:
            cls.lab.run(node, "sh", "-c", f"echo 0 >/etc/clock; echo {PROGRAMS}/clock.so "
                        ">/etc/ld.so.preload", user="root", check=True)
            cls.lab.command("kill", node)
        for node in cls.lab.nodes:
            cls.lab.command("start", node)
            cls.lab.prepare_node(node)
        cls.lab.settle()

    def setUp(self):
        super().setUp()
        until(lambda: all(n["role"] for n in self.nodes().values()), 30,
              lambda: f"not all are voters: {self.nodes()}")

    def tearDown(self):
        for node in self.lab.nodes:
            self.step(node, 0)
        super().tearDown()

    def step(self, node, ahead):
        """All of its programs see it with their next look; seconds."""
        self.lab.run(node, "sh", "-c", f"echo {ahead} >/etc/clock.new; mv /etc/clock.new /etc/clock",
                     user="root", check=True)
        text = self.lab.run(node, "date", "+%s", check=True).text
        self.assertLess(abs(int(text) - time.time() - ahead), 60)

    def nodes(self):
        text = self.lab.run("n1", "ssi-nodes", "--json", "--history", check=True).text
        history = {n["node"]: n for n in json.loads(text)["nodes"]}
        text = self.lab.run("n1", "ssi-nodes", "--json", check=True).text
        return {n["node"]: {**n, "losses": history[n["node"]]["losses"]}
                for n in json.loads(text)["nodes"]}

    def fates(self):
        return {name: (n["state"], n["losses"]) for name, n in self.nodes().items()}

    def leader(self):
        return next(name for name, n in self.nodes().items() if n["role"].startswith("leader"))

    def seen_by_ssid(self, node):
        """How far the clock of its ssid is ahead: by the stamp of what it tells of a program."""
        app = self.start(node, "ssi-run", "-o", "@ID@", "true").app()
        stamp = until(lambda: next((e["time"] for e in self.events(node) if e.get("app") == app and
                                    e["type"] == "app-ended"), None))
        return beats.moment(stamp) - time.time()

    def events(self, node):
        text = self.lab.run(node, "ssi-events", "--json", user="root", check=True).text
        return [json.loads(line) for line in text.splitlines()]

    def test_steps_of_an_hour_are_not_noticed(self):
        leader, before = self.leader(), self.fates()
        follower, other = [n for n in self.lab.nodes if n != leader]
        running, pid = self.beat(node=follower)
        for node in [leader, follower]:
            for ahead in [HOUR, 0]:
                self.step(node, ahead)
                self.assertLess(abs(self.seen_by_ssid(node) - ahead), 60)
                # Longer than a lease, which would have ended by now, or never.
                time.sleep(2.5)
                self.assertEqual(self.lab.run(other, "ssi-run", "--node", node, "hostname").text,
                                 f"{node}\n")
                target = next(n for n in [other, follower] if n != self.lab.where(pid))
                self.assert_result(self.lab.run(leader, "ssi-migrate", str(pid), target), 0)
        self.assertEqual((self.leader(), self.fates()), (leader, before))
        for node in self.lab.nodes:
            self.assertNotRegex(self.lab.logs(node, fresh=True), "fenced for|has not renewed")
        self.assert_one(pid)
        self.end(running, pid)

    def test_a_cluster_of_clocks_that_are_hours_apart_loses_a_node_and_has_it_back(self):
        for node, ahead in zip(self.lab.nodes, [HOUR, -HOUR, 0]):
            self.step(node, ahead)
        leader = self.leader()
        at = next(n for n in self.lab.nodes if n != leader)
        self.lab.command("kill", leader)
        until(lambda: f"{leader} has been lost for" in self.lab.run(at, "ssi-nodes").err.decode(), 20)
        self.lab.command("start", leader)
        self.lab.prepare_node(leader)
        self.lab.settle()
        self.assertEqual(self.lab.run(at, "ssi-nodes").err, b"")

    def test_what_was_saved_is_revived_although_the_clock_went_back(self):
        running, pid = self.beat()
        for node, ahead in [("n2", HOUR), ("n3", -HOUR)]:
            self.step(node, ahead)
            self.assert_result(self.lab.run("n1", "ssi-migrate", str(pid), "n1"), 0)
            self.assert_result(self.lab.run("n1", "ssi-checkpoint", "--kill", str(pid)), 0)
            self.assertEqual(running.result(20).status, 137)
            running = self.start("n1", "ssi-restart", "--on", node, str(pid))
            self.assertEqual(self.assert_one(pid), node)
        self.end(running, pid)

    def test_nothing_waits_for_a_time_of_the_wall_clock(self):
        for program in ["ssid", "ssi-init"]:
            pid = self.lab.run("n1", "pgrep", "-o", "-x", program, user="root", check=True).text.split()[-1]
            # Attached from outside, while all that it does every few seconds is done.
            trace = self.start("n1", "timeout", "5", "strace", "-f", "-e", "trace=futex,clock_nanosleep",
                               "-o", "/shared/work/trace", "-p", pid, user="root")
            self.lab.run("n2", "ssi-run", "--node", "n1", "true", check=True)
            timers = self.lab.run("n1", "sh", "-c", TIMERS, "sh", pid, user="root", check=True).text
            self.assertRegex(timers, "(?i)clockid: [17]")
            self.assertNotRegex(timers, r"(?i)clockid:\s+0\b")
            trace.result()
            text = self.lab.run("n1", "cat", "/shared/work/trace", user="root", check=True).text
            print(f"# {program}: {text.count('(')} waits, {timers.split()}", flush=True)
            self.assertEqual([match[0] for match in WAIT.finditer(text)], [])


if __name__ == "__main__":
    lab.main()
