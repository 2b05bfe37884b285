"""Who has lost touch stands still before anybody else may go on in its place."""
import json
import os
import re
import time

import beats
import lab
from lab import PROGRAMS, until

FENCED = re.compile(r"fenced for ([0-9.]+) s: applications of this node were frozen")


class Fenced(beats.Beats):
    """What there is to see."""

    N_NODES = 5

    def nodes(self, at):
        text = self.lab.run(at, "ssi-nodes", "--json", check=True).text
        return {n["node"]: n for n in json.loads(text)["nodes"]}

    def leader(self, at):
        return next((n for n, d in self.nodes(at).items()
                     if (d["role"] or "").startswith("leader")), None)

    def history(self, at):
        """How the nodes have fared, and the number of the view."""
        text = self.lab.run(at, "ssi-nodes", "--json", "--history", check=True).text
        status = self.lab.run(at, "ssi-admin", "status", "--json", check=True).text
        nodes = {n["node"]: {k: v for k, v in n.items() if k != "available"}  # it falls and rises
                 for n in json.loads(text)["nodes"]}
        return nodes, json.loads(status)["epoch"]

    def problems(self, at):
        """What ssi-nodes says is wrong, a line each."""
        return self.lab.run(at, "ssi-nodes", check=True).err.decode().splitlines()

    def followers(self, at):
        """Those that do not lead, n1 last."""
        leader = self.wait_for_leader(at)
        return [n for n in reversed(self.lab.nodes) if n != leader]

    def wait_for_leader(self, at):
        """All vote, so that whoever is taken away is one of five."""
        until(lambda: all((d["role"] or "").split(",")[0] in ("leader", "voter")
                          for d in self.nodes(at).values()), 30,
              lambda: f"not all are voters: {self.nodes(at)}")
        return self.leader(at)

    def log_of(self, node):
        """As fast as it can be read: from the node's disk."""
        with open(f"/var/lib/ssi-lab/{self.lab.name}/{node}/var/log/ssid.log",
                  encoding="utf-8", errors="replace") as f:
            return f.read()

    def stamp(self, node):
        """A program that writes down when it runs; (running, pid, file)."""
        name = f"stamp.{time.monotonic_ns()}"
        running = self.start(node, "ssi-run", "-o", "@ID@", f"{PROGRAMS}/stamp",
                             f"/shared/work/{name}")
        pid = running.app()
        path = f"/var/lib/ssi-lab/{self.lab.name}/shared/work/{name}"
        until(lambda: len(self.stamps(path)) > 3)
        return running, pid, path

    @staticmethod
    def stamps(path):
        """[(node, ns)], whole lines."""
        if not os.path.exists(path):
            return []
        with open(path, encoding="ascii") as f:
            lines = f.read().split("\n")[:-1]
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    def await_more(self, path, timeout=30):
        n = len(self.stamps(path))
        until(lambda: len(self.stamps(path)) > n + 5, timeout, lambda: f"{path} does not grow")

    def await_frozen(self, node, timeout=20):
        """Frozen by the kernel's account, all of it."""
        until(lambda: "frozen 1" in self.lab.run(
            node, "cat", "/sys/fs/cgroup/ssi.space/work/cgroup.events", user="root").text,
            timeout, lambda: f"{node} is not frozen")

    def await_lost(self, at, who, since):
        """For each of who: a moment at which none of the nodes at had decided yet that it is lost, and
        the next look showed that one had."""
        decided, before = {}, time.time_ns()

        def look():
            nonlocal before
            now = time.time_ns()
            logs = "".join(self.log_of(node)[since[node]:] for node in at)
            for node in who:
                if node not in decided and re.search(rf"node {node} has not renewed", logs):
                    decided[node] = before
            before = now
            return len(decided) == len(who)

        until(look, 30, lambda: f"called lost: {list(decided)}")
        return decided

    def cut_off(self, these, others):
        for a in these:
            for b in others:
                self.lab.command("cut", a, b)

    def marks(self):
        return {n: len(self.log_of(n)) for n in self.lab.nodes}

    def record_of(self, node, since):
        """For how long it says that it was fenced."""
        found = until(lambda: FENCED.search(self.log_of(node)[since[node]:]), 30,
                      lambda: f"no record on {node}: {self.log_of(node)[-500:]}")
        return float(found[1])

    def tearDown(self):
        self.lab.mend()
        super().tearDown()

    def silent(self, node):
        """Whom it names as missing."""
        text = self.lab.run(node, "ssi-admin", "status").err.decode()
        found = re.search("of the voters .*, (n.*) (have|has) not answered", text)
        names = re.search(r"voters .* and n\d, (.*)$", found[0].split(" have not")[0]) if found else None
        return set(re.findall(r"n\d", names[1])) if names else set()

    def freeze(self, node, value):
        """The whole node, at once: without the time that a command takes."""
        with open(f"{self.lab.group(node)}/cgroup.freeze", "w", encoding="ascii") as f:
            f.write(value)

    def signal_ssid(self, node, name):
        self.lab.run(node, "sh", "-c", f"kill -{name} $(cat /run/ssi/ssid.pid)", user="root",
                     check=True)

    def end_stamp(self, running, pid, node):
        self.lab.run(node, "ssi-run", "kill", "-9", str(pid), user="root", check=True)
        self.assertEqual(running.result(20).status, 137)


class Fencing(Fenced):
    # ssid alone stands still.

    def test_ssid_that_is_stopped_for_a_second_is_not_noticed(self):
        self.wait_for_leader("n1")
        running, pid, path = self.stamp("n4")
        since = self.marks()
        incarnation = self.nodes("n1")["n4"]["state"]
        self.signal_ssid("n4", "STOP")
        time.sleep(1)
        self.signal_ssid("n4", "CONT")
        self.lab.settle()
        self.await_more(path)
        self.assertEqual(self.nodes("n1")["n4"]["state"], incarnation)
        for node in self.lab.nodes:
            self.assertNotRegex(self.log_of(node)[since[node]:], "fenced for|has not renewed")
        self.end_stamp(running, pid, "n4")

    def test_a_node_that_stands_still_for_a_second_is_not_noticed(self):
        node = self.followers("n1")[0]
        running, pid, path = self.stamp(node)
        since, before = self.marks(), self.history("n1")
        self.freeze(node, "1")
        time.sleep(1)
        self.freeze(node, "0")
        self.await_more(path)
        self.lab.settle()
        self.assertEqual(self.history(node), before)  # no view has followed
        for at in self.lab.nodes:
            self.assertNotRegex(self.log_of(at)[since[at]:], "fenced for|has not renewed")
        self.end_stamp(running, pid, node)

    def test_ssid_that_is_stopped_for_long_is_fenced_without_its_help(self):
        self.wait_for_leader("n1")
        running, pid, path = self.stamp("n4")
        since = self.marks()
        others = [n for n in self.lab.nodes if n != "n4"]
        stopped = time.time_ns()
        self.signal_ssid("n4", "STOP")
        decided = self.await_lost(others, ["n4"], since)["n4"]
        self.await_frozen("n4")
        last = self.stamps(path)[-1][1]
        self.assertLess(last, decided, "it still ran when it was called lost")
        time.sleep(max(0, 10 - (time.time_ns() - stopped) / 1e9))
        self.assertEqual(self.stamps(path)[-1][1], last)
        self.signal_ssid("n4", "CONT")
        self.lab.settle()
        self.await_more(path)
        print(f"# froze {(decided - last) / 1e6:.0f} ms before it was called lost; it says that it "
              f"was fenced for {self.record_of('n4', since)} s", flush=True)
        self.assertEqual(self.lab.where(pid, "n1"), "n4")
        # ssi-run here, whose node was lost to the others, has waited for it all the same.
        self.end_stamp(running, pid, "n4")

    def test_a_killed_ssid_that_does_not_come_back_leaves_nothing_running(self):
        self.wait_for_leader("n1")
        running, pid, path = self.stamp("n5")
        since = self.marks()
        # Its successor is stopped before it can ask for a lease.
        self.lab.run("n5", "sh", "-c", """
old=$(cat /run/ssi/ssid.pid); kill -9 $old
while [ "$(cat /run/ssi/ssid.pid)" = $old ]; do sleep 0.02; done
kill -STOP $(cat /run/ssi/ssid.pid)""", user="root", check=True)
        until(lambda: self.nodes("n1")["n5"]["state"] == "lost", 20)
        self.await_frozen("n5")
        self.signal_ssid("n5", "CONT")
        self.lab.settle()
        self.await_more(path)
        self.record_of("n5", since)
        self.end_stamp(running, pid, "n5")

    # A whole node stands still.

    def test_a_paused_node_finds_its_guests_given_up_and_its_own_as_they_were(self):
        self.wait_for_leader("n1")
        home, guest, path = self.stamp("n1")
        self.assert_result(self.lab.run("n1", "ssi-migrate", str(guest), "n5"), 0)
        own, pid, own_path = self.stamp("n5")
        since = self.marks()
        self.lab.command("pause", "n5")
        until(lambda: self.nodes("n1")["n5"]["state"] == "lost", 20)
        self.assertEqual(home.result(20).status, 137)  # by its home it ended with its node
        time.sleep(7)
        woken = time.time_ns()
        self.lab.command("resume", "n5")
        self.lab.settle()
        self.record_of("n5", since)
        self.await_more(own_path)
        until(lambda: guest not in self.lab.processes("n1"))
        late = [t for _, t in self.stamps(path) if t > woken]
        print(f"# woken, the guest ran for {(late[-1] - late[0]) / 1e6 if late else 0:.0f} ms", flush=True)
        self.assertRegex(self.log_of("n5")[since["n5"]:], f"process {guest} is killed")
        self.assertEqual(self.lab.where(pid, "n1"), "n5")
        self.end_stamp(own, pid, "n5")

    def test_what_was_revived_elsewhere_is_not_thawed(self):
        self.wait_for_leader("n1")
        running, pid, path = self.stamp("n4")
        self.assert_result(self.lab.run("n4", "ssi-checkpoint", str(pid)), 0)
        since = self.marks()
        self.lab.command("pause", "n4")
        until(lambda: self.nodes("n1")["n4"]["state"] == "lost", 20)
        self.assert_result(self.lab.run("n1", "ssi-restart", "-b", "--on", "n2", str(pid)), 0)
        self.assertEqual(self.lab.where(pid, "n1"), "n2")
        woken = time.time_ns()
        self.lab.command("resume", "n4")
        self.lab.settle()
        self.record_of("n4", since)
        self.assertRegex(self.log_of("n4")[since["n4"]:],
                         f"process {pid} is killed: it was started anew on node")
        until(lambda: len(self.lab.copies("stamp")) == 1, 20)
        self.await_more(path)
        for at in self.lab.nodes:
            until(lambda n=at: self.lab.where(pid, n) == "n2", 20)
        # The window of a machine that wakes, and nothing after that.
        thawed = time.time_ns()
        self.await_more(path)
        print(f"# woken {(thawed - woken) / 1e6:.0f} ms ago", flush=True)
        # Its home, which was out, knows it again: signals find it.
        self.lab.run("n4", "ssi-run", "kill", "-TERM", str(pid), user="root", check=True)
        until(lambda: not self.lab.copies("stamp"), 20)
        until(lambda: pid not in self.lab.processes("n1"), 20)
        running.result(20)

    def test_a_minute_is_outlived_by_a_node_and_by_another_without_its_ssid(self):
        stopped, paused = away = self.followers("n1")[:2]
        others = [n for n in self.lab.nodes if n not in away]
        programs = {node: self.stamp(node) for node in away}
        guest, guest_pid, guest_path = self.stamp(paused)
        self.assert_result(self.lab.run(paused, "ssi-checkpoint", str(guest_pid)), 0)
        since, before = self.marks(), self.history("n1")[0]
        began = time.monotonic()
        self.signal_ssid(stopped, "STOP")
        self.lab.command("pause", paused)
        decided = self.await_lost(others, away, since)
        self.await_frozen(stopped)
        last = {node: self.stamps(path)[-1][1] for node, (_, _, path) in programs.items()}
        self.assertLess(last[stopped], decided[stopped], "it still ran when it was called lost")
        # What is started anew elsewhere begins after that.
        self.assertEqual({n for n, _ in self.stamps(guest_path)}, {paused})
        self.assert_result(self.lab.run(others[0], "ssi-restart", "-b", "--on", others[0],
                                        str(guest_pid)), 0)
        until(lambda: self.stamps(guest_path)[-1][0] == others[0])
        anew = next(t for n, t in self.stamps(guest_path) if n == others[0])
        self.assertGreater(anew, decided[paused])
        for node in away:
            self.assertIn(f"ssi-nodes: {node} has been lost for", "\n".join(self.problems(others[0])))
        time.sleep(60 - (time.monotonic() - began))
        for node, (_, _, path) in programs.items():
            self.assertEqual(self.stamps(path)[-1][1], last[node], f"{node} has run")
        self.lab.command("resume", paused)
        self.signal_ssid(stopped, "CONT")
        self.lab.settle()
        for node, (running, pid, path) in programs.items():
            # By the node itself, and by all.
            self.assertGreater(self.record_of(node, since), 50)
            for at in self.lab.nodes:
                told = self.history(at)[0][node]
                self.assertEqual(int(told["losses"]), int(before[node]["losses"]) + 1)
                self.assertGreater(beats.moment(told["up"]) - beats.moment(told["lost"]), 50)
            self.await_more(path)
            self.end_stamp(running, pid, node)
        self.assertRegex(self.log_of(paused)[since[paused]:], f"process {guest_pid} is killed")
        until(lambda: [n for n, _ in self.lab.copies("stamp")] == [others[0]], 20)
        self.lab.run(others[0], "ssi-run", "kill", "-9", str(guest_pid), user="root", check=True)
        guest.result(20)
        # Nothing is wrong any more; that a node was lost often, by earlier tests too, is told still.
        until(lambda: not [p for p in self.problems(others[0]) if not re.search(r" was lost \d+ times", p)],
              20, lambda: str(self.problems(others[0])))

    # Parts of the network are cut.

    def test_a_minority_freezes_before_it_is_called_lost_and_goes_on_when_it_heals(self):
        self.wait_for_leader("n1")
        programs = {n: self.stamp(n) for n in ["n4", "n5", "n2"]}
        since = self.marks()
        self.cut_off(["n4", "n5"], ["n1", "n2", "n3"])
        decided = self.await_lost(["n1", "n2", "n3"], ["n4", "n5"], since)
        for node in ["n4", "n5"]:
            self.await_frozen(node)
            last = self.stamps(programs[node][2])[-1][1]
            self.assertLess(last, decided[node], f"{node} still ran when it was called lost")
            print(f"# {node} froze {(decided[node] - last) / 1e6:.0f} ms before", flush=True)
            self.assert_result(self.lab.run(node, "ssi-run", "true"), 8, "of the voters|among the voters")
            until(lambda n=node: self.silent(n) == {"n1", "n2", "n3"}, 20,
                  lambda n=node: f"{n} misses {self.silent(n)}")
            self.assert_result(self.lab.run(node, "ssi-run", "true"), 8, "^ssi-run: no majority: of the "
                               "voters .* have not answered since .* recover")
            r = self.lab.run(node, "ssi-admin", "status")
            self.assertEqual(r.status, 8, r)
            self.assertRegex(r.err.decode(), "no majority(.|\n)*fenced: the programs")
            self.assertEqual(self.nodes(node)[node]["state"], "fenced")
        # The majority has not noticed.
        self.await_more(programs["n2"][2])
        self.assertEqual(self.lab.run("n1", "ssi-run", "--node", "n2", "hostname").text, "n2\n")
        self.lab.command("heal")
        self.lab.settle()
        for node, (running, pid, path) in programs.items():
            self.await_more(path)
            self.end_stamp(running, pid, node)
        self.assertNotRegex(self.log_of("n2")[since["n2"]:], "fenced for")

    def test_a_leader_that_is_cut_off_freezes_before_its_successor_calls_it_lost(self):
        leader = self.wait_for_leader("n1")
        others = [n for n in self.lab.nodes if n != leader]
        running, pid, path = self.stamp(leader)
        since = self.marks()
        self.cut_off([leader], others)
        decided = self.await_lost(others, [leader], since)[leader]
        self.await_frozen(leader)
        last = self.stamps(path)[-1][1]
        self.assertLess(last, decided)
        print(f"# froze {(decided - last) / 1e6:.0f} ms before", flush=True)
        self.lab.command("heal")
        self.lab.settle()
        self.await_more(path)
        self.end_stamp(running, pid, leader)

    def one_path_is_cut(self, *options):
        """Between two that do not lead: one goes out, and comes back when it is mended."""
        leader = self.wait_for_leader("n1")
        a, b = [n for n in self.lab.nodes if n != leader][:2]
        programs = {n: self.stamp(n) for n in [a, b]}
        since = self.marks()
        self.lab.command("cut", a, b, *options)
        # Somebody has to miss it.
        r = self.lab.run(a, "ssi-run", "--node", b, "true")
        self.assertNotEqual(r.status, 0, r)
        lost = until(lambda: [n for n, d in self.nodes(leader).items() if d["state"] == "lost"], 60,
                     lambda: f"nobody is out: {self.nodes(leader)}")
        out, stays = (a, b) if lost == [a] else (b, a)
        self.assertEqual(lost, [out])
        self.await_frozen(out)
        r = self.lab.run(out, "ssi-run", "true")
        self.assert_result(r, 8, f"^ssi-run: there is no path between this node and {stays}, ")
        # It stays so, and the other one has noticed nothing.
        n = len(self.stamps(programs[out][2]))
        time.sleep(5)
        self.assertEqual(len(self.stamps(programs[out][2])), n)
        self.assertEqual([n for n, d in self.nodes(leader).items() if d["state"] == "lost"], [out])
        self.await_more(programs[stays][2])
        self.assertEqual(self.lab.run(leader, "ssi-run", "--node", stays, "hostname").text,
                         f"{stays}\n")
        self.lab.command("heal")
        self.lab.settle()
        for node, (running, pid, path) in programs.items():
            self.await_more(path)
            self.end_stamp(running, pid, node)
        self.assertNotRegex(self.log_of(stays)[since[stays]:], "fenced for")
        self.record_of(out, since)
        self.assertEqual(self.lab.run(a, "ssi-run", "--node", b, "hostname").text, f"{b}\n")

    def test_of_two_without_a_path_one_goes_out_until_it_is_mended(self):
        self.one_path_is_cut()

    def test_a_path_that_is_cut_one_way_is_none(self):
        self.one_path_is_cut("--one-way")

    def test_a_link_that_is_cut_one_way_costs_one_member_and_not_the_leader(self):
        leader = self.wait_for_leader("n1")
        node, *others = self.followers("n1")
        for a, b in [(node, leader), (leader, node)]:
            with self.subTest(cut=f"{a} to {b}"):
                running, pid, path = self.stamp(node)
                away, away_pid, away_path = self.stamp(others[0])
                since = self.marks()
                self.lab.command("cut", a, b, "--one-way")
                decided = self.await_lost([leader, *others], [node], since)[node]
                self.await_frozen(node)
                last = self.stamps(path)[-1][1]
                self.assertLess(last, decided)
                print(f"# froze {(decided - last) / 1e6:.0f} ms before", flush=True)
                self.await_more(away_path)
                self.lab.command("heal")
                self.lab.settle()
                self.await_more(path)
                self.assertEqual(self.wait_for_leader(node), leader)
                for at in [leader, *others]:
                    self.assertNotRegex(self.log_of(at)[since[at]:], "fenced for")
                self.end_stamp(running, pid, node)
                self.end_stamp(away, away_pid, others[0])

    # Nodes die.

    def test_two_of_five_die_at_once_and_a_move_between_others_ends_well(self):
        leader = self.wait_for_leader("n1")
        spare = [n for n in self.lab.nodes if n != leader]
        alive = spare[1:]
        running, pid = self.beat(64, alive[0])
        tool = self.start(alive[2], "ssi-migrate", str(pid), alive[1])
        for node in [leader, spare[0]]:
            self.lab.command("kill", node)
        self.assert_told(tool)
        until(lambda: {self.nodes(alive[0])[n]["state"] for n in [leader, spare[0]]} == {"lost"}, 20)
        for node in [leader, spare[0]]:
            self.lab.command("start", node)
            self.lab.prepare_node(node)
        self.lab.settle()
        self.assert_one(pid)
        self.end(running, pid)

    # A disk is full.

    def give_a_small_disk(self, node):
        """What its ssid keeps is moved to one that can be filled; it stands still meanwhile."""
        self.lab.run(node, "sh", "-c", """
kill -STOP $(cat /run/ssi/ssid.pid) && mkdir /tmp/disk && mount -t tmpfs -o size=8m disk /tmp/disk &&
cp -a /var/lib/ssi/. /tmp/disk && mount --bind /tmp/disk /var/lib/ssi && kill -9 $(cat /run/ssi/ssid.pid)
""", user="root", check=True)

    def fill_disk(self, node):
        """Until it can write no more, as others decide."""
        since = len(self.log_of(node))
        at = next(n for n in self.lab.nodes if n != node)
        self.lab.run(node, "sh", "-c", "cat /dev/zero >/var/lib/ssi/full", user="root")

        def decide():
            self.lab.run(at, "ssi-admin", "token", user="root")
            return "No space left on device" in self.log_of(node)[since:]
        until(decide, 30, lambda: f"{node} still writes: {self.log_of(node)[since:]}")

    def test_a_full_disk_under_the_store_of_a_follower_and_of_the_leader_stops_nobody(self):
        for node in self.lab.nodes:
            self.give_a_small_disk(node)
        self.lab.settle()
        for role in ["follower", "leader"]:
            with self.subTest(role=role):
                leader = self.wait_for_leader("n1")
                node = leader if role == "leader" else self.followers("n1")[0]
                running, pid, path = self.stamp(node)
                since = self.marks()
                self.fill_disk(node)
                at = next(n for n in self.lab.nodes if n != node)
                until(lambda: self.leader(at) not in (None, node), 20)
                # It is a member as before, and the others decide.
                self.lab.run(at, "ssi-admin", "token", user="root", check=True)
                self.await_more(path)
                self.assertEqual(self.lab.run(at, "ssi-run", "--node", node, "hostname").text, f"{node}\n")
                # All know which it is, and what to do.
                for n in [node, at]:
                    until(lambda n=n: re.search(rf"^ssi-nodes: {node} cannot write to the disk .*No space.*; "
                                                "make room", "\n".join(self.problems(n)), re.M), 20,
                          lambda n=n: f"{n}: {self.problems(n)}")
                for n in self.lab.nodes:
                    self.assertNotRegex(self.log_of(n)[since[n]:], "fenced for|has not renewed")
                self.lab.run(node, "rm", "/var/lib/ssi/full", user="root", check=True)
                until(lambda n=at: self.problems(n) == [], 20, lambda n=at: self.problems(n))
                # What was decided meanwhile it has, now and when it reads its store.
                for _ in range(2):
                    self.wait_for_leader(at)
                    until(lambda: self.history(node) == self.history(at), 20)
                    self.lab.kill_ssid(node)
                    self.lab.settle()
                self.end_stamp(running, pid, node)


FENCE = """#!/bin/sh
echo "$@" $SSI_NODE $SSI_NODE_ID $SSI_NODE_ADDRESS >>/shared/work/fenced
[ ! -e /shared/work/fail ] || exit 4
[ ! -e /shared/work/hang ] || sleep 300
"""


class Operator(Fenced):
    """What an operator can do, and a site."""

    N_NODES = 4

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.lab.run("n1", "sh", "-c", "cat >/shared/fence && chmod 755 /shared/fence", user="root",
                    input=FENCE, check=True)
        for node in cls.lab.nodes:
            cls.lab.run(node, "sh", "-c", "mkdir -p /etc/ssi && printf '[cluster]\\nfence_command = "
                        "/shared/fence\\nfence_timeout_s = 3\\n' >/etc/ssi/ssid.conf",
                        user="root", check=True)
            cls.lab.kill_ssid(node)
            cls.lab.settle()

    def wait_for_leader(self, at):
        """Three of four vote."""
        def voters():
            return sum((d["role"] or "").split(",")[0] in ("leader", "voter")
                       for d in self.nodes(at).values())
        until(lambda: voters() == 3 and self.leader(at), 30, lambda: str(self.nodes(at)))
        return self.leader(at)

    def fenced(self):
        return self.lab.run("n1", "cat", "/shared/work/fenced").text.splitlines()

    def lose(self, node, leader, pattern):
        """Its power is cut, the leader's log says so, and it comes back."""
        since = self.marks()
        self.lab.command("kill", node)
        until(lambda: re.search(pattern, self.log_of(leader)[since[leader]:]), 30,
              lambda: self.log_of(leader)[since[leader]:])
        self.lab.command("start", node)
        self.lab.prepare_node(node)
        self.lab.settle()

    def test_a_lost_node_is_fenced_by_the_command_of_the_site(self):
        leader = self.wait_for_leader("n1")
        node = next(n for n in self.lab.nodes if n not in (leader, "n1"))
        d = self.nodes("n1")[node]
        self.lose(node, leader, f"node {node} is fenced by /shared/fence")
        self.assertEqual(self.fenced(), [" ".join([node, str(d["id"]), d["address"]] * 2)])
        self.lab.run("n1", "touch", "/shared/work/fail", check=True)
        self.lose(node, leader, f"fence_command for node {node} failed .exit status 4.")
        self.lab.run("n1", "mv", "/shared/work/fail", "/shared/work/hang", check=True)
        self.lose(node, leader, f"fence_command for node {node} has not ended within 3 s and is killed")
        until(lambda: self.lab.run(leader, "pgrep", "-f", "^sleep 300").status == 1)
        self.lab.run("n1", "rm", "/shared/work/hang", check=True)
        self.assertEqual(len(self.fenced()), 3)

    def test_recover_lets_one_voter_decide_alone(self):
        leader = self.wait_for_leader("n1")
        roles = {n: (d["role"] or "").split(",")[0] for n, d in self.nodes("n1").items()}
        voter, lost = [n for n, r in roles.items() if r == "voter"]
        plain = next(n for n, r in roles.items() if r not in ("voter", "leader"))
        programs = [self.stamp(n) for n in (voter, plain)]
        before = json.loads(self.lab.run(voter, "ssi-admin", "status", "--json").text)["epoch"]
        for node in (leader, lost):
            self.lab.command("kill", node)
        self.lab.nodes = [voter, plain]  # the others are gone for ever
        for node in (voter, plain):
            self.await_frozen(node)
        r = self.lab.run(voter, "ssi-admin", "recover", "--yes", user="root")
        self.assert_result(r, 6, "ssid runs")
        r = self.lab.run(voter, "ssi-admin", "recover", "--socket", "/none", user="root")
        self.assert_result(r, 2, "dangerous")
        r = self.lab.run(plain, "ssi-admin", "recover", "--socket", "/none", "--yes", user="root")
        self.assert_result(r, 4, "no voter")
        # The node keeps its ssid running: it stands still meanwhile, and is gone then.
        self.signal_ssid(voter, "STOP")
        r = self.lab.run(voter, "ssi-admin", "recover", "--socket", "/none", "--yes", user="root")
        self.assert_result(r, 0)
        self.lab.kill_ssid(voter)
        until(lambda: self.lab.run(voter, "ssi-nodes").status == 0)
        for at in (voter, plain):
            until(lambda n=at: self.leader(n) == voter and
                  {self.nodes(n)[x]["state"] for x in (leader, lost)} == {"lost"}, 30)
        for _, _, path in programs:
            self.await_more(path)
        after = json.loads(self.lab.run(plain, "ssi-admin", "status", "--json").text)
        self.assertGreater(after["epoch"], before + 1000)
        self.assertEqual(self.lab.run(voter, "ssi-run", "--node", plain, "hostname").text,
                         f"{plain}\n")
        for (running, pid, _), node in zip(programs, (voter, plain)):
            self.end_stamp(running, pid, node)


class Replaced(Fenced):
    """In a cluster of its own: it makes former voters."""

    N_NODES = 4
    wait_for_leader = Operator.wait_for_leader

    def test_a_voter_that_is_lost_is_replaced(self):
        def roles(at):
            return {n: (d["role"] or "").split(",")[0] for n, d in self.nodes(at).items()}
        leader = self.wait_for_leader("n1")
        before = roles(leader)
        lost = next(n for n, r in before.items() if r == "voter")
        plain = next(n for n, r in before.items() if not r)
        self.lab.command("kill", lost)
        until(lambda: roles(leader)[plain] == "voter" and not roles(leader)[lost], 40, lambda: str(roles(leader)))
        # Without the new one there would be no majority now.
        self.lab.command("kill", leader)
        until(lambda: self.leader(plain) not in (leader, None), 20)
        self.lab.run(plain, "ssi-admin", "token", user="root", check=True)
        for node in [lost, leader]:
            self.lab.command("start", node)
            self.lab.prepare_node(node)
        self.lab.settle()
        # Who was one knows what was decided then.
        r = self.lab.run(lost, "ssi-admin", "recover", "--socket", "/none", "--yes", user="root")
        self.assert_result(r, 4, "no voter")


if __name__ == "__main__":
    lab.main()
