"""A signal to a group reaches its members on all nodes, each of them once."""
import re
import signal

import lab
from beats import Beats
from lab import PROGRAMS, until

N_MEMBERS = 6
FILE = "/shared/work/group"


class Groups(Beats):
    def tearDown(self):
        super().tearDown()
        self.lab.run("n1", "rm", "-f", FILE, user="root")

    def text(self):
        return self.lab.run("n1", "cat", FILE).text

    def group(self, *options):
        """Start it; its leader's tool, {name: (PID, node)}."""
        # Who could read a pipe would stay.
        running = self.start("n1", "ssi-run", *options, "-o", "@ID@", "sh", "-c",
                             f"exec {PROGRAMS}/group {FILE} {N_MEMBERS} </dev/null", cwd="/shared/work")

        def members():
            found = {name: (int(pid), node) for name, pid, node in
                     re.findall(r"^(\S+) is (\d+) on (\S+)$", self.text(), re.M)}
            return found if len(found) == 1 + 3 * N_MEMBERS else None
        return running, until(members, 20, self.text)

    def spread(self):
        running, members = self.group("--spread")
        self.assertEqual({node for _, node in members.values()}, {"n1", "n2", "n3"}, members)
        return running, members

    def got(self, number, since=0):
        """[(name, code, sender, uid, value)] of that signal, of what was written since."""
        return [(name, int(code), int(pid), int(uid), int(value)) for name, code, pid, uid, value in
                re.findall(rf"^(\S+) got {int(number)} code (-?\d+) from (\d+) uid (\d+) value (-?\d+)$",
                           self.text()[since:], re.M)]

    def mark(self):
        return len(self.text())

    def each_got(self, members, number, since, sender=None):
        """One each, all from the same sender, who is told."""
        got = until(lambda: (g := self.got(number, since)) and len(g) >= len(members) and g, 20,
                    lambda: self.text()[since:])
        self.assertEqual(sorted(name for name, *_ in got), sorted(members), got)
        self.assertEqual({code for _, code, *_ in got}, {0}, got)
        self.assertEqual({uid for _, _, _, uid, _ in got}, {self.lab.uid}, got)
        senders = {pid for _, _, pid, _, _ in got}
        self.assertEqual(len(senders), 1, got)
        if sender:
            self.assertEqual(senders, {sender}, got)

    def kill(self, node, name, group):
        return self.lab.run("n1", "ssi-run", "--node", node, "kill", f"-{name}", "--", f"-{group}")

    def send(self, node, name, group):
        r = self.kill(node, name, group)
        self.assertEqual(r.status, 0, r)

    def settled(self, since):
        """Nothing more comes."""
        last = self.text()
        for _ in range(10):
            self.lab.run("n1", "sleep", "0.1")
        self.assertEqual(self.text(), last, last[since:])

    def signal_from_everywhere(self, running, members, nodes):
        group = running.app()
        for node in nodes:
            since = self.mark()
            self.send(node, "USR1", group)
            self.each_got(members, signal.SIGUSR1, since)
            self.settled(since)
        # By members, of each node, as kill(0).
        for node in nodes:
            for what in [r"m\d", r"m\d\.1"]:
                name, pid = next(((name, pid) for name, (pid, n) in members.items()
                                  if n == node and re.fullmatch(what, name)), (None, None))
                if not name:
                    continue
                since = self.mark()
                self.assert_result(self.lab.run("n1", "ssi-run", "--node", node, "kill", "-USR2", str(pid)), 0)
                self.each_got(members, signal.SIGUSR1, since, sender=pid)
                self.assertEqual([who for who, *_ in self.got(signal.SIGUSR2, since)], [name])
        # With a value, to one of them only.
        for node in nodes:
            since = self.mark()
            self.assert_result(self.lab.run("n1", "ssi-run", "--node", node, "/bin/kill", "-q", "77", "-s", "35",
                                            str(group)), 0)
            until(lambda at=since: self.got(35, at), 20)
            self.settled(since)
            self.assertEqual([(name, code, value) for name, code, _, _, value in self.got(35, since)],
                             [("leader", -1, 77)])
        since = self.mark()
        self.send(nodes[-1], "INT", group)
        self.each_got(members, signal.SIGINT, since)
        self.assert_result(running.result(20), 0)
        self.nothing_is_left()

    def test_on_one_node_as_everywhere(self):
        running, members = self.group()
        self.signal_from_everywhere(running, members, ["n1"])

    def test_each_member_gets_it_once_wherever_it_is_sent(self):
        running, members = self.spread()
        self.signal_from_everywhere(running, members, ["n1", "n2", "n3"])

    def test_none_of_many_is_lost_or_doubled(self):
        running, members = self.spread()
        group = running.app()
        for node in self.lab.nodes:
            since = self.mark()
            r = self.lab.run("n1", "ssi-run", "--node", node, "sh", "-c",
                             f"for i in 1 2 3 4 5 6 7 8 9 10; do kill -35 -{group}; done")
            self.assertEqual(r.status, 0, r)
            until(lambda at=since: len(self.got(35, at)) >= 10 * len(members), 30,
                  lambda at=since: self.text()[at:])
            self.settled(since)
            names = [name for name, *_ in self.got(35, since)]
            self.assertEqual({name: names.count(name) for name in names}, dict.fromkeys(members, 10))
        self.send("n3", "INT", group)
        self.assert_result(running.result(20), 0)
        self.nothing_is_left()

    def test_a_path_that_is_cut_for_a_moment_only_delays_it(self):
        running, members = self.spread()
        group = running.app()
        for a, b in [("n2", "n3"), ("n1", "n2")]:
            since = self.mark()
            sender = self.start(a, "ssi-run", "--node", a, "sh", "-c", f"echo ready; read x; kill -USR1 -{group}")
            sender.expect("ready")
            self.lab.command("cut", a, b)
            sender.write("\n")
            until(lambda at=since: self.got(signal.SIGUSR1, at), 20)
            self.lab.command("heal")
            self.each_got(members, signal.SIGUSR1, since)
            self.settled(since)
            self.assert_result(sender.result(20), 0)
            self.lab.settle()
        self.send("n1", "INT", group)
        self.assert_result(running.result(20), 0)
        self.nothing_is_left()

    def states(self, members):
        found = self.lab.processes()
        return {name: found[pid]["s"] for name, (pid, _) in members.items() if pid in found}

    def test_it_stops_and_goes_on_everywhere(self):
        running, members = self.spread()
        group = running.app()
        for stop, go_on in [("n1", "n2"), ("n2", "n3"), ("n3", "n1")]:
            self.send(stop, "STOP", group)
            until(lambda: set(self.states(members).values()) == {"T"}, 20, lambda: self.states(members))
            since = self.mark()
            self.send(stop, "USR1", group)  # which waits
            self.send(go_on, "CONT", group)
            until(lambda: "T" not in self.states(members).values(), 20, lambda: self.states(members))
            self.each_got(members, signal.SIGUSR1, since)
            names = until(lambda: (n := [name for name, *_ in self.got(signal.SIGCONT, since)])
                          and len(n) >= len(members) and n, 20, lambda: self.text()[since:])
            self.assertEqual(sorted(names), sorted(members))
            self.settled(since)
        self.send("n3", "KILL", group)
        self.assertEqual(running.result(20).status, 137)
        self.nothing_is_left()

    def test_it_ends_everywhere_and_is_no_more(self):
        for node, name, status in [("n1", "TERM", 143), ("n2", "TERM", 143), ("n1", "KILL", 137), ("n2", "KILL", 137)]:
            with self.subTest(f"{name} at {node}"):
                running, members = self.spread()
                group = running.app()
                self.send(node, name, group)
                self.assertEqual(running.result(20).status, status)
                until(lambda: not self.states(members), 20, lambda: self.states(members))
                for each in self.lab.nodes:
                    until(lambda at=each: self.kill(at, "0", group).status == 1, 20)
                self.nothing_is_left()
                self.lab.run("n1", "rm", FILE)

    def test_ssid_may_die_before_it_is_told(self):
        running, members = self.spread()
        group = running.app()
        for dead in self.lab.nodes:
            for node in self.lab.nodes:
                since = self.mark()
                sender = self.start("n1" if node != dead else node, "ssi-run", "--node", node, "sh", "-c",
                                    f"echo ready; read x; kill -USR1 -{group}")
                sender.expect("ready")
                old = self.lab.kill_ssid(dead)
                sender.write("\n")
                self.await_successor(dead, old)
                self.each_got(members, signal.SIGUSR1, since)
                self.settled(since)
                self.assert_result(sender.result(20), 0)
        self.send("n2", "TERM", group)
        self.assertEqual(running.result(20).status, 143)
        self.nothing_is_left()

    def test_the_others_get_it_when_a_node_is_lost(self):
        running, members = self.spread()
        group = running.app()
        self.lab.command("kill", "n3")
        alive = {name: at for name, at in members.items() if at[1] != "n3"}
        for node in ["n1", "n2", "n1"]:
            since = self.mark()
            self.send(node, "USR1", group)
            self.each_got(alive, signal.SIGUSR1, since)
            self.settled(since)
        self.send("n2", "TERM", group)
        self.assertEqual(running.result(20).status, 143)
        self.lab.command("start", "n3")
        self.lab.prepare_node("n3")
        self.lab.settle()
        self.nothing_is_left()

    def test_nobody_escapes_who_is_forked_meanwhile(self):
        self.lab.run("n1", "sh", "-c", "printf 'all: 1 2 3 4 5 6 7 8\n%%:\n\t"
                     "@echo $@ >>where; uname -n >>where; while :; do /bin/true; done\n' >/shared/work/Makefile",
                     check=True)
        for name in ["TERM", "USR1"]:  # which kills as well
            # One forks at home whatever is placed where; who has a child stays.
            r = self.lab.run("n1", "ssi-run", "--spread", "timeout", "-s", name, "4", "sh", "-c",
                             "(read node </proc/sys/kernel/hostname; echo $node >>where; "
                             "while :; do /bin/true; done) & exec make -s -j8", cwd="/shared/work")
            self.assertEqual(r.status, 124, r)
            self.nothing_is_left()
        where = self.lab.run("n1", "cat", "/shared/work/where").text.split()
        self.assertEqual({node for node in where if node.startswith("n")}, {"n1", "n2", "n3"})


lab.main()
