"""A cluster goes on without the node that founded it, and comes back after a power cut of all."""
import json

import lab
from lab import until


class Roles(lab.Tests):
    """What there is to see."""

    def nodes(self, at):
        text = self.lab.run(at, "ssi-nodes", "--json", check=True).text
        return {n["node"]: n for n in json.loads(text)["nodes"]}

    def roles(self, at):
        """leader, voter, or nothing, by name."""
        return {name: (n["role"] or "").split(",")[0] for name, n in self.nodes(at).items()}

    def leader(self, at):
        """Its name, in the view of a node."""
        return next((name for name, role in self.roles(at).items() if role == "leader"), None)

    def wait_for_voters(self, at):
        until(lambda: set(self.roles(at).values()) == {"leader", "voter"}, 30,
              lambda: f"not all are voters: {self.nodes(at)}")

    def stop(self, node):
        """Its ssid, in order; what it said."""
        self.lab.run(node, "sh", "-c", "kill $(cat /run/ssi/ssid.pid)", user="root", check=True)
        until(lambda: "ssid has stopped" in self.lab.logs(node, fresh=True), 20)
        return self.lab.logs(node, fresh=True)


class Leader(Roles):
    def test_the_leader_loses_power_and_nobody_waits_for_it(self):
        self.wait_for_voters("n1")
        leader = self.leader("n1")
        here, there = [n for n in self.lab.nodes if n != leader]
        program = self.start(here, "ssi-run", "--node", there, "sh", "-c",
                             "echo $$; while read line; do echo got $line; done; exit 3")
        pid = int(program.expect("^[0-9]+$")[0])
        self.lab.command("kill", leader)
        program.ask("one", "^got one$")
        until(lambda: self.leader(here) in (here, there), 10,
              lambda: f"no other leader: {self.nodes(here)}")
        until(lambda: self.nodes(here)[leader]["state"] == "lost", 10)
        # Everything that needs a leader works: PIDs, moves, admission.
        self.assertEqual(self.lab.run(here, "ssi-run", "--node", there, "hostname").text,
                         f"{there}\n")
        token = self.lab.run(here, "ssi-admin", "token", "--quiet", user="root", check=True).text
        self.assertRegex(token, "^SSI1-")
        program.ask("two", "^got two$")
        self.assertEqual(self.lab.where(pid, here), there)
        self.lab.command("start", leader)
        self.lab.prepare_node(leader)
        self.lab.settle()
        self.assertNotEqual(self.leader(leader), leader)
        self.assertEqual(self.lab.where(pid, leader), there)
        result = program.result()
        self.assertEqual((result.status, result.out.count(b"got")), (3, 2))

    def test_a_leader_that_is_stopped_lets_another_lead_first(self):
        self.wait_for_voters("n1")
        leader = self.leader("n1")
        other = next(n for n in self.lab.nodes if n != leader)
        self.assertIn("leads the cluster no more", self.stop(leader))
        until(lambda: self.leader(other) not in (leader, None), 5)
        self.lab.command("start", leader)
        self.lab.settle()

    def test_without_a_majority_nothing_is_decided_and_programs_stand_still(self):
        self.wait_for_voters("n1")
        program = self.start("n1", "ssi-run", "sh", "-c",
                             "echo up; while read line; do echo got $line; done")
        program.expect("^up$")
        for node in ["n2", "n3"]:
            self.lab.command("kill", node)
        until(lambda: b"are frozen" in self.lab.run("n1", "ssi-nodes").err, 15)
        program.write("one\n")
        for command in [("ssi-admin", "token"), ("ssi-run", "true")]:
            r = self.lab.run("n1", *command, user="root")
            self.assert_result(r, 8, f"^{command[0]}: (no majority: of the voters|out of touch)")
        # What is read all the same is said to be old.
        for command, missing in [(("ssi-ps",), ["n2", "n3"]), (("ssi-nodes", "--history"), []), (("ssi-nodes",), [])]:
            r = self.lab.run("n1", *command, check=True)
            self.assertRegex(r.err.decode(), f"(?m)^{command[0]}: this node has lost touch with the cluster.* may be old")
            for node in missing:
                self.assertIn(f"node {node} does not answer", r.err.decode())
        self.assertNotIn(b"got one", program.read())
        for node in ["n2", "n3"]:
            self.lab.command("start", node)
            self.lab.prepare_node(node)
        self.lab.settle()
        program.expect("^got one$")
        program.ask("two", "^got two$")
        self.assertEqual(program.result().status, 0)

    def test_a_power_cut_of_all_heals_by_itself(self):
        self.wait_for_voters("n1")
        for node in self.lab.nodes:
            self.lab.command("kill", node)
        for node in reversed(self.lab.nodes):
            self.lab.command("start", node)
            self.lab.prepare_node(node)
        self.lab.settle()
        for node in self.lab.nodes:
            r = self.lab.run("n1", "ssi-run", "--node", node, "hostname")
            self.assertEqual((r.status, r.text), (0, f"{node}\n"), r)


class Two(Roles):
    N_NODES = 2

    def test_the_only_voter_that_is_stopped_leaves_its_vote_to_the_other(self):
        voter = next(name for name, role in self.roles("n1").items() if role == "leader")
        other = next(n for n in self.lab.nodes if n != voter)
        program = self.start(other, "ssi-run", "--node", other, "sh", "-c",
                             "echo up; while read line; do echo got $line; done")
        program.expect("^up$")
        self.stop(voter)
        self.assertEqual(self.roles(other)[other], "leader")
        until(lambda: self.nodes(other)[voter]["state"] == "lost", 20)
        program.ask("one", "^got one$")
        self.assertEqual(self.lab.run(other, "ssi-run", "hostname").text, f"{other}\n")
        self.lab.run(other, "ssi-admin", "token", user="root", check=True)
        self.assertNotIn("fenced for", self.lab.logs(other, fresh=True))
        self.lab.command("start", voter)
        self.lab.settle()
        self.assertEqual(self.roles(other), {other: "leader", voter: ""})
        program.ask("two", "^got two$")
        self.assertEqual(program.result().status, 0)


if __name__ == "__main__":
    lab.main()
