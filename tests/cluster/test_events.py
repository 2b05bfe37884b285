"""What happens is told: to operators by ssi-nodes and ssi-events, to programs by libssi."""
import json
import re

import lab
from lab import PROGRAMS, until


class Events(lab.Tests):
    def nodes(self, at, *options):
        text = self.lab.run(at, "ssi-nodes", "--json", *options, check=True).text
        answer = json.loads(text)
        self.assertEqual(answer["version"], 1)
        return {n["node"]: n for n in answer["nodes"]}, answer.get("problems", [])

    def events(self, at, *options, user="root"):
        r = self.lab.run(at, "ssi-events", "--json", *options, user=user)
        self.assertEqual((r.status, r.err), (0, b""), r)
        events = [json.loads(line) for line in r.text.splitlines()]
        self.assertEqual({e["version"] for e in events} | {1}, {1})
        return events

    def wait_for_voters(self):
        until(lambda: all((n["role"] or "").startswith(("leader", "voter"))
                          for n in self.nodes("n1")[0].values()), 30)

    def lose(self, node, seen_by):
        self.lab.command("kill", node)
        until(lambda: self.nodes(seen_by)[0][node]["state"] == "lost", 20)

    def bring_back(self, node):
        self.lab.command("start", node)
        self.lab.prepare_node(node)
        self.lab.settle()

    def test_a_lost_node_is_told_counted_and_remembered(self):
        self.wait_for_voters()
        self.assertEqual(self.nodes("n1")[1], [])
        before = int(self.nodes("n1", "--history")[0]["n3"]["losses"])
        follow = self.start("n2", "ssi-events", "--json", "--follow", "--type", "node-")
        until(lambda: self.lab.run("n2", "pgrep", "-x", "ssi-events", user="root").status == 0)
        self.lose("n3", "n1")
        r = self.lab.run("n1", "ssi-nodes")
        self.assertRegex(r.err.decode(), r"(?m)^ssi-nodes: n3 has been lost for \d+ s: .*; start it")
        problems = self.nodes("n1")[1]
        self.assertIn("n3", {p["node"] for p in problems})
        self.assertTrue(all(p["what"] and p["remedy"] for p in problems))
        # Without --quiet only: scripts need not hear of it.
        self.assertEqual(self.lab.run("n1", "ssi-nodes", "--quiet").err, b"")
        follow.expect(r'"type":"node-lost".*"node":"n3"')
        self.bring_back("n3")
        follow.expect(r'"type":"node-up".*"node":"n3"')
        # All nodes tell the same of it, the one that was away as well.
        for node in self.lab.nodes:
            history = self.nodes(node, "--history")[0]["n3"]
            self.assertEqual(int(history["losses"]), before + 1)
            self.assertGreaterEqual(history["up"], history["lost"])
            self.assertLess(float(history["available"]), 100)
        self.assertIn(("node-lost", "n3"),
                      {(e["type"], e["node"]) for e in self.events("n1", "--type", "node")})

    def test_programs_moves_and_checkpoints_are_told_everywhere_and_to_their_owner(self):
        program = self.start("n1", "ssi-run", "--node", "n2", f"{PROGRAMS}/watcher")
        program.expect("^start")
        pid = self.app_of("watcher")
        self.assertEqual(self.lab.run("n3", "ssi-migrate", str(pid), "n3").status, 0)
        self.assertEqual(self.lab.run("n1", "ssi-checkpoint", "--leave-running", str(pid)).status, 0)
        self.assertEqual(program.result().status, 0)

        def mine(at, user):
            return {e["type"]: e for e in self.events(at, user=user) if e.get("app") == pid}
        until(lambda: "app-ended" in mine("n1", "ssi"), 10)
        for at in self.lab.nodes:
            found = mine(at, "ssi")
            self.assertEqual(set(found), {"app-started", "process-moved", "checkpoint-saved",
                                          "app-ended"})
        moved = found["process-moved"]
        self.assertEqual((moved["node"], moved["to"], moved["pid"]), ("n2", "n3", pid))
        self.assertGreater(moved["bytes"], 0)
        self.assertRegex(found["checkpoint-saved"]["text"], f"^{pid}-")
        self.assertEqual((found["app-ended"]["exit"], found["app-started"]["node"]), (0, "n2"))
        self.assertEqual(set(mine("n1", "root")), set(found))
        self.assertEqual(mine("n1", "nobody"), {})

    def app_of(self, command):
        return until(lambda: next((p for p, d in self.lab.processes("n1").items()
                                   if re.search(rf"/{command}\b", d["command"])), None))

    def test_a_restart_of_ssid_loses_no_events_and_a_follower_none(self):
        follow = self.start("n1", "ssi-events", "--json", "--follow", "--type", "app")
        until(lambda: self.lab.run("n1", "pgrep", "-x", "ssi-events", user="root").status == 0)

        def run(k):
            self.assertEqual(self.lab.run("n1", "ssi-run", "sh", "-c", f"exit {k}").status, k)
            follow.expect(rf'"type":"app-ended".*"exit":{k}\b')
        run(41)
        before = [e["number"] for e in self.events("n1") if e["source"] == "n1"]
        for k in [42, 43]:
            old = self.lab.kill_ssid("n1")
            until(lambda: self.lab.run("n1", "cat", "/run/ssi/ssid.pid").text.strip() != old)
            self.lab.settle()
            run(k)
        after = [e["number"] for e in self.events("n1") if e["source"] == "n1"]
        self.assertEqual(after[:len(before)], before)
        self.assertEqual(after, list(range(after[0], after[0] + len(after))))
        told = re.findall(rb'"exit":(\d+)', follow.read())
        self.assertEqual(told, [b"41", b"42", b"43"])
        self.assertNotIn(b'"gap"', follow.read())

    def test_a_program_is_told_of_nodes_that_come_and_go_wherever_it_is(self):
        for mode in [[], ["thread"]]:
            with self.subTest(mode=mode):
                self.wait_for_voters()
                program = self.start("n1", "ssi-run", f"{PROGRAMS}/watcher", *mode)
                program.expect("^start 0, 3 on n1$")
                pid = self.app_of("watcher")
                self.lose("n3", "n1")
                program.expect("^removed 1, 2 on n1$")
                self.assertEqual(self.lab.run("n1", "ssi-migrate", str(pid), "n2").status, 0)
                self.bring_back("n3")
                program.expect("^added 1, 3 on n2$")
                # Not noticed: nothing is between the program and ssid.
                old = self.lab.kill_ssid("n2")
                until(lambda: self.lab.run("n2", "cat", "/run/ssi/ssid.pid").text.strip() != old)
                self.lab.settle()
                self.assertEqual(self.lab.run("n1", "ssi-migrate", str(pid), "n1").status, 0)
                self.lose("n3", "n1")
                program.expect("(?s)^removed 1, 2 on n1$.*^removed 1, 2 on n1$")
                self.bring_back("n3")
                program.expect("^added 1, 3 on n1$")
                result = program.result()
                self.assertEqual((result.status, result.err), (0, b""), result)
                self.assertEqual(len(result.text.splitlines()), 5, result)


if __name__ == "__main__":
    lab.main()
