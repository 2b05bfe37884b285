"""A program whose every step is written down, to tell whether one copy of it lives."""
import datetime
import json
import time

import lab
from lab import PROGRAMS, until

SSID = "cat /run/ssi/ssid.pid"


def moment(text):
    """In seconds, of a date in JSON."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Beats(lab.Tests):
    def beat(self, megabytes=0, node="n1"):
        """A heart that beats; (running, pid)."""
        self.beats = f"/shared/work/beats.{time.monotonic_ns()}"
        running = self.start(node, "ssi-run", "-o", "@ID@", f"{PROGRAMS}/beat", self.beats,
                             str(megabytes))
        pid = running.app()
        until(lambda: len(self.heard()) > 3)
        return running, pid

    def heard(self):
        """The beats so far: [(number, node)], whole lines."""
        # Some node is off, perhaps.
        results = (self.lab.run(node, "cat", self.beats, user="root") for node in self.lab.nodes)
        text = next((r.text for r in results if r.status == 0), "")
        return [(int(n), node) for n, node in
                (line.split() for line in text.split("\n")[:-1])]

    def assert_never_two(self):
        beats = [n for n, _ in self.heard()]
        self.assertEqual(beats, list(range(1, len(beats) + 1)), "a beat was doubled or lost")

    def assert_one(self, pid, timeout=30):
        """Within a bounded time exactly one copy lives, and only one has lived; where."""
        start = len(self.heard())
        until(lambda: len(self.heard()) > start + 5, timeout,
              lambda: f"{pid} does not live: copies {self.lab.copies('beat')}, ssi-ps "
              f"{self.lab.processes().get(pid)}")
        until(lambda: len(self.lab.copies("beat")) == 1, timeout,
              lambda: f"copies: {self.lab.copies('beat')}")
        self.assert_never_two()
        node = self.heard()[-1][1]
        self.assertEqual(self.lab.copies("beat")[0][0], node)
        until(lambda: {self.said_by(by, pid) for by in self.lab.nodes} == {node}, timeout,
              lambda: f"it lives on {node}, ssi-ps: {self.lab.processes().get(pid)}")
        return node

    def said_by(self, by, pid):
        """Where the process is by a node's ssi-ps; None while there is no ssid, or it does not know."""
        r = self.lab.run(by, "ssi-ps", "--json")
        if r.status:
            return None
        return {int(p["pid"]): p["node"] for p in json.loads(r.text)["processes"]}.get(pid)

    def assert_told(self, tool):
        """A tool has ended with success, or one clear line."""
        r = tool.result(45)
        if r.status:
            self.assertIn(r.status, [1, 4, 5, 6, 7, 8], r)
            self.assertRegex(r.err.decode(), r"^ssi-[a-z]+: .{10,}\n$")
        return r

    def nothing_is_left(self):
        """No process of an application, no shadow and no sentinel, on any node."""
        def left():
            found = [f"{p}" for p in self.lab.processes().values()]
            for node in self.lab.nodes:
                text = self.lab.run(node, "sh", "-c",
                                    "find /proc -maxdepth 2 -name exe -lname '*/ssi-s[hp]*' 2>/dev/null",
                                    user="root").text
                found += [f"{node} {line}" for line in text.split()]
            return found
        until(lambda: not left(), 20, left)

    def end(self, running, pid):
        """The tool learns of the end, whichever way the process went."""
        node = self.lab.where(pid)
        self.lab.run(node, "ssi-run", "kill", "-9", str(pid), user="root")
        r = running.result(20)
        self.assertEqual(r.status, 137, r)
        until(lambda: pid not in self.lab.processes())
        self.assertEqual(self.lab.copies("beat"), [])

    def arm(self, node, name, action):
        self.lab.run(node, "ssi-admin", "fault", name, action, user="root", check=True)

    def ssid_of(self, node):
        return self.lab.run(node, "sh", "-c", SSID, user="root").text.strip()

    def await_successor(self, node, old):
        until(lambda: self.ssid_of(node) not in ("", old), 20, lambda: f"no new ssid on {node}")
        self.lab.settle()

    def left(self, node):
        """Images, groups and processes of the space on the node, but ssi-init and ssid."""
        text = self.lab.run(node, "sh", "-c", """
cd /sys/fs/cgroup/ssi.space/work
ls -A /run/ssi/private
ls -d *.*/ 2>/dev/null
for p in $(find . -name cgroup.procs -exec cat {} +); do cat /proc/$p/comm; done
true""", user="root", check=True).text
        return sorted(text.split())

    def assert_nothing_left(self, node, before):
        """No more than before: what an earlier test had may be on its way out."""
        def more():
            now = self.left(node)
            return [name for name in set(now) if now.count(name) > before.count(name)]

        until(lambda: not more(), 20, lambda: f"{node} holds {more()}, and held {before}")
