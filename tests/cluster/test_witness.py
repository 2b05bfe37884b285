"""Two nodes and a witness: either node may die."""
import json

import lab
from lab import until


class Witness(lab.Tests):
    @classmethod
    def setUpClass(cls):
        cls.lab = lab.Lab(3, "--no-ssid")
        for node in cls.lab.nodes:
            cls.lab.run(node, "touch", "/var/log/ssid.log", user="root", check=True)

    def do(self, node, *command):
        return self.lab.run(node, *command, user="root", check=True).text

    def boot(self, node):
        self.lab.start(node, "sh", "-c", "exec ssid 2>>/var/log/ssid.log", user="root")
        self.do(node, "ssi-admin", "status", "--wait", "20")

    def nodes(self, at):
        return {n["node"]: n for n in json.loads(self.do(at, "ssi-nodes", "--json"))["nodes"]}

    def join(self, node, *options):
        token = self.do("n1", "ssi-admin", "token", "--quiet").strip()
        self.do(node, "ssi-admin", "join", *options, "--address", f"10.77.0.{node[1]}", token)
        self.boot(node)

    def test_a_node_of_two_dies_and_the_other_goes_on(self):
        self.do("n1", "ssi-admin", "init", "--quiet", "--address", "10.77.0.1")
        self.boot("n1")
        self.join("n2")
        self.join("n3", "--witness")
        until(lambda: sum("voter" in n["role"] or "leader" in n["role"]
                          for n in self.nodes("n1").values() if n["role"]) == 3, 30,
              lambda: str(self.nodes("n1")))
        self.assertRegex(self.nodes("n1")["n3"]["role"], "^(voter|leader), witness$")

        # It has no space and no programs, and says so.
        self.assertEqual(self.lab.run("n3", "ls", "/run/ssi/init.sock", user="root").status, 2)
        self.assert_result(self.lab.run("n1", "ssi-run", "--node", "n3", "true"), 8,
                           "^ssi-run: n3 is a witness, which runs no programs")
        self.assert_result(self.lab.run("n3", "ssi-run", "true"), 8, "^ssi-run: this node is a witness")
        program = self.start("n2", "ssi-run", "sh", "-c",
                             "echo $$; while read line; do echo got $line; done")
        pid = int(program.expect("^[0-9]+$")[0])
        self.assert_result(self.lab.run("n2", "ssi-migrate", str(pid), "n3"), 8, "n3 is a witness")
        self.assertIn(pid, self.lab.processes("n3"))
        for _ in range(4):
            self.assertIn(self.do("n1", "ssi-run", "--best", "hostname").strip(), ["n1", "n2"])

        self.lab.command("kill", "n1")
        until(lambda: self.nodes("n2")["n1"]["state"] == "lost", 20)
        until(lambda: self.nodes("n2")["n2"]["role"] == "leader, here", 20,
              lambda: str(self.nodes("n2")))
        program.ask("one", "^got one$")
        self.assertEqual(self.do("n2", "ssi-run", "hostname"), "n2\n")
        self.assertEqual(program.result().status, 0)

        # It goes, comes back and ends with the cluster by command, as any member.
        self.lab.command("start", "n1")
        self.boot("n1")
        until(lambda: all(n["role"] for n in self.nodes("n2").values()), 30,
              lambda: str(self.nodes("n2")))
        self.do("n3", "ssi_remove_nodes", "n3")
        self.assertEqual(self.nodes("n2")["n3"]["state"], "removed")
        self.do("n2", "ssi_add_nodes", "n3")
        self.assertEqual(self.do("n2", "ssi-admin", "cluster", "shutdown"),
                         "the cluster is shut down: 0 ended\n")
        for node in self.lab.nodes:
            until(lambda node=node: self.lab.run(node, "pgrep", "-x", "ssid", user="root").status)

    def tearDown(self):
        for running in self.lab.running:
            running.stop()


if __name__ == "__main__":
    lab.main()
