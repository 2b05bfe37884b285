"""Nodes are removed and added while programs run, whoever dies meanwhile; the cluster is shut down."""
import json

import beats
import lab
from lab import PROGRAMS, until


class Hotplug(beats.Beats):
    def nodes(self, at="n1"):
        """State by name, as a node sees it."""
        text = self.lab.run(at, "ssi-nodes", "--json", check=True).text
        return {n["node"]: n for n in json.loads(text)["nodes"]}

    def states(self, at="n1"):
        return {name: n["state"] for name, n in self.nodes(at).items()}

    def leader(self, at):
        return next((n for n, d in self.nodes(at).items() if (d["role"] or "").startswith("leader")),
                    None)

    def root(self, node, *command):
        return self.lab.run(node, *command, user="root")

    def remove(self, at, *words, status=0):
        r = self.root(at, "ssi_remove_nodes", *words)
        self.assertEqual(r.status, status, r)
        return r

    def add(self, at, *words):
        r = self.root(at, "ssi_add_nodes", *words)
        self.assertEqual(r.status, 0, r)

    def others(self, *names):
        return [n for n in self.lab.nodes if n not in names]

    def setUp(self):
        super().setUp()
        # Whoever of two voters dies takes the majority along.
        until(lambda: all(n["role"] for n in self.nodes().values()), 30,
              lambda: f"not all are voters: {self.nodes()}")

    def tearDown(self):
        # Whatever a test leaves: all are members again.
        at = next(n for n in self.lab.nodes if self.states(n)[n] == "up")
        if out := [n for n, s in self.states(at).items() if s == "removed"]:
            self.add(at, *out)
        super().tearDown()

    def test_a_removed_node_is_empty_and_comes_back_by_command_only(self):
        running, pid = self.beat(node="n2")
        r = self.remove("n3", "n2")
        self.assertRegex(r.text, "^n2 removed, may be stopped: 1 moved, 0 ended\n$")
        self.assertIn(self.assert_one_of(pid, "n1"), ["n1", "n3"])
        self.assertFalse(self.nodes("n1")["n2"]["role"])
        r = self.lab.run("n2", "ssi-run", "true")
        self.assert_result(r, 8, "n2 is removed, ssi_add_nodes brings it back")
        r = self.root("n2", "ssi_add_nodes", "n2")
        self.assert_result(r, 8, "give the command on a member")
        # Again is no error, and a new start changes nothing.
        self.remove("n1", "n2")
        self.lab.command("kill", "n2")
        self.lab.command("start", "n2")
        self.lab.prepare_node("n2")
        until(lambda: self.root("n2", "ssi-nodes").status == 0)
        until(lambda: self.states("n2").get("n2") == "removed")
        self.add("n1", "n2")
        self.assertEqual(self.lab.run("n1", "ssi-run", "--node", "n2", "hostname").text, "n2\n")
        running.stop()  # it went with the power of its node
        self.root("n1", "ssi-run", "kill", "-9", str(pid))

    def assert_one_of(self, pid, at):
        """Where it is, as a member says."""
        start = len(self.heard())
        until(lambda: len(self.heard()) > start + 5)
        self.assert_never_two()
        return self.lab.where(pid, at)

    def test_what_cannot_move_is_named_and_only_ended_by_force(self):
        running = self.start("n1", "ssi-run", "--node", "n3", "-o", "@ID@", f"{PROGRAMS}/holder",
                             "flock", "/shared/work/lock")
        pid = running.app()
        running.expect("^holding$")
        for dry in [["--dry-run"], []]:
            r = self.root("n2", "ssi_remove_nodes", *dry, "n3")
            self.assertEqual(r.status, 5, r)
            self.assertIn(str(pid), r.text if dry else r.err.decode())
            self.assertIn("lock", r.text if dry else r.err.decode())
        r = self.root("n2", "ssi_remove_nodes", "--json", "n3")
        self.assertEqual((r.status, [s["pid"] for s in json.loads(r.text)["stays"]]), (5, [pid]), r)
        self.assertEqual(self.states()["n3"], "up")
        self.assertEqual(self.lab.where(pid), "n3")
        r = self.remove("n2", "--force", "n3")
        self.assertRegex(r.text, "1 ended")
        self.assertNotIn(pid, self.lab.processes())

    def test_wrong_words(self):
        r = self.root("n1", "ssi_remove_nodes", "n9")
        self.assert_result(r, 4, "no node is called n9")
        r = self.lab.run("n1", "ssi_remove_nodes", "n2")
        self.assert_result(r, 3, "only root")
        r = self.root("n1", "ssi_remove_nodes", "n1-n3")
        self.assert_result(r, 6, "no other node is up")
        r = self.root("n1", "ssi-admin", "nodes", "del")
        self.assertEqual(r.status, 2, r)
        self.assertIn(b"exactly one of", r.err)
        self.assertEqual(set(self.states().values()), {"up"})

    def test_a_program_is_waited_for_and_moved_without_its_home(self):
        program = self.start("n1", "ssi-run", "-o", "@ID@", "--node", "n2", "sh", "-c",
                             "while read line; do echo got $line; done; exit 7")
        pid = program.app()
        program.ask("one", "^got one$")
        self.remove("n3", "n2")
        program.ask("two", "^got two$")
        for target in ["n3", "n1", "n3"]:
            r = self.lab.run("n1", "ssi-migrate", str(pid), target)
            self.assertEqual(r.status, 0, r)
            self.assertEqual(self.lab.where(pid, "n1"), target)
            program.ask(target, f"^got {target}$")
        self.assertEqual(program.result().status, 7)
        # Its end was told without the home, which hears of it as well when it is back.
        self.add("n1", "n2")
        until(lambda: pid not in self.lab.processes())

    def test_the_leader_removes_itself(self):
        leader = self.leader("n1")
        running, pid = self.beat(node=leader)
        self.remove(leader, leader)
        at = self.others(leader)[0]
        self.assertNotEqual(self.leader(at), leader)
        self.assertEqual(self.states(at)[leader], "removed")
        self.assert_one_of(pid, at)
        self.add(at, leader)
        self.end(running, pid)

    def test_down_to_one_node_and_up_again(self):
        running, pid = self.beat(node="n1")
        r = self.root("n3", "ssi-admin", "nodes", "del", "--total", "1")
        self.assertEqual(r.status, 0, r)
        self.assertEqual(sorted(self.states("n3").values()), ["removed", "removed", "up"])
        self.assertEqual(self.assert_one_of(pid, "n3"), "n3")
        # The votes of the others are gone: their power may be cut.
        for node in ["n1", "n2"]:
            self.lab.command("kill", node)
        self.assertEqual(self.lab.run("n3", "ssi-run", "hostname").text, "n3\n")
        for node in ["n1", "n2"]:
            self.lab.command("start", node)
            self.lab.prepare_node(node)
        r = self.root("n3", "ssi-admin", "nodes", "add", "--all")
        self.assertEqual(r.status, 0, r)
        self.assertEqual(set(self.states("n3").values()), {"up"})
        self.assertEqual(self.lab.run("n3", "ssi-run", "--node", "n1", "hostname").text, "n1\n")

    def test_the_leader_dies_at_each_step_of_a_removal(self):
        for point in ["hotplug.leaving", "hotplug.drained", "hotplug.removed"]:
            with self.subTest(point=point):
                leader = self.leader("n1")
                gone, at = self.others(leader)
                running, pid = self.beat(node=gone)
                old = self.ssid_of(leader)
                self.arm(leader, point, "kill")
                tool = self.root(at, "ssi_remove_nodes", gone)
                # It asked the next leader.
                self.assertEqual(tool.status, 0, tool)
                self.await_process(leader, old)
                until(lambda: self.states(at)[gone] == "removed")
                self.assertNotEqual(self.assert_one_of(pid, at), gone)
                self.add(at, gone)
                self.lab.settle()
                self.end(running, pid)

    def await_process(self, node, old):
        until(lambda: self.ssid_of(node) not in ("", old), 20, lambda: f"no new ssid on {node}")

    def test_the_ssid_of_a_node_dies_as_it_is_emptied(self):
        running, pid = self.beat(node="n2")
        old = self.ssid_of("n2")
        self.arm("n2", "hotplug.emptied", "kill")
        self.remove("n1", "n2")
        self.await_process("n2", old)
        self.assertEqual(self.states("n1")["n2"], "removed")
        self.assert_one_of(pid, "n1")
        self.add("n1", "n2")
        self.end(running, pid)

    def test_a_node_loses_power_as_it_is_removed(self):
        leader = self.leader("n1")
        gone, at = self.others(leader)
        running, _ = self.beat(node=gone)
        self.lab.command("cut", gone, leader)
        tool = self.start(at, "ssi_remove_nodes", gone)
        self.lab.command("kill", gone)
        self.assertIn(tool.result(60).status, [0, 3])
        r = self.root(at, "ssi_remove_nodes", gone)
        self.assertEqual(r.status, 0, r)
        self.assertEqual(self.states(at)[gone], "removed")
        self.lab.command("heal")
        self.lab.command("start", gone)
        self.lab.prepare_node(gone)
        running.stop()

    def test_many_removals_and_additions_in_a_row(self):
        running, pid = self.beat(node="n1")
        for i in range(10):
            gone = self.lab.nodes[i % 3]
            at = self.lab.nodes[(i + 1) % 3]
            self.remove(at, gone)
            self.assertNotEqual(self.lab.where(pid, at), gone)
            self.add(at, gone)
        self.assert_one(pid)
        self.assertEqual(set(self.states().values()), {"up"})
        self.end(running, pid)

    def test_the_cluster_is_shut_down_and_starts_again(self):
        running, pid = self.beat(node="n2")
        r = self.root("n3", "ssi-admin", "cluster", "shutdown")
        self.assertEqual(r.status, 5, r)
        self.assertIn(str(pid), r.err.decode())
        self.assert_one(pid)
        r = self.root("n3", "ssi-admin", "cluster", "shutdown", "--force")
        self.assertEqual((r.status, r.text), (0, "the cluster is shut down: 1 ended\n"), r)
        for node in self.lab.nodes:
            until(lambda node=node: self.root(node, "ssi-admin", "status").status == 8)
            until(lambda node=node: self.root(node, "pgrep", "-x", "ssid").status != 0, 20,
                  lambda node=node: f"an ssid runs on {node}")
        self.assertEqual(self.lab.copies("beat"), [])
        running.stop()
        for node in self.lab.nodes:
            self.lab.command("start", node)
        self.lab.settle()
        self.assertEqual(set(self.states().values()), {"up"})


if __name__ == "__main__":
    lab.main()
