"""Nodes join with tokens, wrongly in every way, and come and go many times."""
import json
import re
import shutil

import lab
from lab import until


# A peer that takes any certificate, and shows its own.
DIAL = r"""
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["ssi/1"])
context.load_cert_chain("/var/lib/ssi/node.pem", "/var/lib/ssi/node.key")
try:
    with context.wrap_socket(socket.create_connection((sys.argv[2], 7777), 10, (sys.argv[1], 0))) as s:
        print("ended", len(s.recv(4096)))
except (ssl.SSLError, ConnectionError) as e:
    print("ended", e)
"""


class Joining(lab.Tests):
    """n1 and n2 are one cluster; n3 is alone, or of another one."""

    @classmethod
    def setUpClass(cls):
        cls.lab = lab.Lab(3, "--no-ssid")
        for node in cls.lab.nodes:
            cls.lab.run(node, "touch", "/var/log/ssid.log", user="root", check=True)
        cls.tokens = [cls.do("n1", "ssi-admin", "init", "--quiet", "--address", "10.77.0.1").strip()]
        cls.boot("n1")

    def tearDown(self):
        for running in self.lab.running[self.first_running:]:
            running.stop()

    @classmethod
    def do(cls, node, *command):
        return cls.lab.run(node, *command, user="root", check=True).text

    @classmethod
    def boot(cls, node, program="ssid"):
        """An ssid that goes on when the test ends."""
        cls.do(node, "sh", "-c", f"setsid {program} 2>>/var/log/ssid.log </dev/null >/dev/null &")

    def stop(self, node):
        self.do(node, "sh", "-c", "kill $(cat /run/ssi/ssid.pid); "
                "while pgrep -x ssid >/dev/null; do sleep 0.05; done")

    def forget(self, node):
        """As it was before it joined."""
        self.do(node, "sh", "-c", "rm -rf /var/lib/ssi")

    def leave(self, machine, name=None):
        """Nothing of it is left, here or in the cluster."""
        if self.lab.run(machine, "pgrep", "-x", "ssid", user="root").status == 0:
            self.stop(machine)
        if name:
            self.do("n1", "ssi_remove_nodes", name)
        self.forget(machine)

    def state(self, at, node):
        nodes = json.loads(self.do(at, "ssi-nodes", "--json"))["nodes"]
        return next((n["state"] for n in nodes if n["node"] == node), None)

    def token(self, *options):
        return self.do("n1", "ssi-admin", "token", "--quiet", *options).strip()

    def join(self, node, token, *options):
        return self.lab.run(node, "ssi-admin", "join", "--quiet", "--address",
                            f"10.77.0.{node[1]}", *options, token, user="root")

    def member(self, node):
        """A member that is up, whatever it was before."""
        if self.lab.run(node, "test", "-e", "/var/lib/ssi/node.pem", user="root").status:
            self.assert_result(self.join(node, self.token()), 0)
        if self.lab.run(node, "pgrep", "-x", "ssid", user="root").status:
            self.boot(node)
        self.do(node, "ssi-admin", "status", "--wait", "20")
        # Of two voters neither may stop.
        until(lambda: self.n_voters() % 2, 30, lambda: f"{self.n_voters()} voters")

    def n_voters(self):
        nodes = json.loads(self.do("n1", "ssi-nodes", "--json"))["nodes"]
        return sum(bool(re.match("leader|voter", n["role"] or "")) for n in nodes)

    def test_a_token_is_good_once_and_for_its_time(self):
        token = self.token()
        self.assert_result(self.join("n3", token, "--node", "second"), 0)
        self.assert_result(self.join("n3", self.token()), 6, "belongs to a cluster")
        self.boot("n3")
        self.do("n3", "ssi-admin", "status", "--wait", "20")
        self.assertEqual(self.do("n1", "ssi-run", "--node", "second", "hostname"), "n3\n")
        self.leave("n3", "second")
        self.assert_result(self.join("n3", token, "--node", "third"), 3, "unknown, used or expired")
        soon = self.token("--lifetime", "1")
        until(lambda: self.join("n3", soon, "--node", "second").status == 3, 10)
        self.assert_result(self.join("n3", token[:-30] + "x" + token[-29:]), 3)
        self.assert_result(self.join("n3", "SSI1-nonsense"), 3)
        # A name is one member's for ever; who asked for it may ask for another with his token.
        token = self.token()
        self.assert_result(self.join("n3", token, "--node", "second"), 6, "this name already")
        self.assert_result(self.join("n3", token, "--node", "second"), 6, "this name already")
        self.assertEqual(self.lab.run("n3", "ls", "/var/lib/ssi/node.pem", user="root").status, 2)

    def test_a_node_of_another_cluster_gets_nowhere(self):
        self.member("n2")
        self.do("n3", "ssi-admin", "init", "--quiet", "--address", "10.77.0.3")
        self.boot("n3")
        self.do("n3", "ssi-admin", "status", "--wait", "20")
        # A token of that cluster is none of this one, and the other way round.
        other = self.do("n3", "ssi-admin", "token", "--quiet").strip()
        address = re.compile(r"10\.77\.0\.\d:\d+$")
        forged = address.sub("10.77.0.1:7777", other)
        self.assertNotEqual(self.join("n2", other).status, 0)
        self.stop("n3")
        self.forget("n3")
        r = self.join("n3", forged)
        self.assertIn(r.status, [3, 8], r)

        # The certificate of another cluster in place of its own.
        self.stop("n2")
        self.do("n3", "ssi-admin", "init", "--quiet", "--address", "10.77.0.3")
        for file in ["node.pem", "node.key", "ca.pem"]:
            text = self.do("n3", "cat", f"/var/lib/ssi/{file}")
            self.do("n2", "cp", "-p", f"/var/lib/ssi/{file}", f"/var/lib/ssi/{file}.own")
            self.lab.run("n2", "sh", "-c", f"cat >/var/lib/ssi/{file}", user="root",
                         input=text.encode(), check=True)
        self.forget("n3")
        r = self.lab.run("n2", "ssid", user="root")
        self.assertNotEqual(r.status, 0, r)
        self.assertIn("/var/lib/ssi/node.pem, its key or /var/lib/ssi/ca.pem is not of node n2",
                      r.err.decode())
        for file in ["node.pem", "node.key", "ca.pem"]:
            self.do("n2", "mv", f"/var/lib/ssi/{file}.own", f"/var/lib/ssi/{file}")
        self.member("n2")
        self.assertEqual(self.state("n1", "n2"), "up")

    def test_members_of_two_clusters_at_one_address_do_not_meet(self):
        self.member("n2")
        self.stop("n2")
        self.do("n2", "mv", "/var/lib/ssi", "/var/lib/ssi.own")
        # n2 becomes a member of a cluster that n3 founds; then there is a member of ours at n3's address.
        self.do("n3", "ssi-admin", "init", "--quiet", "--address", "10.77.0.3")
        self.boot("n3")
        self.do("n3", "ssi-admin", "status", "--wait", "20")
        token = self.do("n3", "ssi-admin", "token", "--quiet").strip()
        self.assert_result(self.join("n2", token), 0)
        self.boot("n2")
        self.do("n2", "ssi-admin", "status", "--wait", "20")
        program = self.lab.start("n2", "ssi-run", "sleep", "1000", user="root")
        until(lambda: self.state("n3", "n2") == "up")
        self.lab.kill_ssid("n3")  # in order it would leave its vote to n2
        self.forget("n3")
        self.assert_result(self.join("n3", self.token(), "--node", "stranger"), 0)
        self.boot("n3")
        self.do("n3", "ssi-admin", "status", "--wait", "20")
        # It is told apart by both, and who looks is told.
        until(lambda: "10.77.0.2 was refused: it does not accept our certificate" in self.lab.logs("n3"), 20)
        for tool in ["ssi-nodes", "ssi-ps"]:
            until(lambda t=tool: b"lost touch with the cluster" in self.lab.run("n2", t).err, 20)
        until(lambda: b"its certificate is not of this cluster" in self.lab.run("n2", "ssi-nodes").err, 20)
        # Nor does it help not to look at ours.  From an address of its own: of each a line a minute is logged.
        address = "10.77.0.202"
        self.do("n2", "ip", "address", "add", f"{address}/24", "dev", "eth0")
        r = self.lab.run("n2", "python3", "-c", DIAL, address, "10.77.0.1", user="root", timeout=30)
        self.assertRegex(r.text, "^ended (0|.*(alert|reset))", r)
        until(lambda: f"{address} was refused: its certificate is not of this cluster" in self.lab.logs("n1"), 20)
        self.do("n2", "ip", "address", "del", f"{address}/24", "dev", "eth0")
        self.assertEqual(self.do("n1", "ssi-run", "--node", "stranger", "hostname"), "n3\n")
        nodes = json.loads(self.do("n1", "ssi-nodes", "--json"))["nodes"]
        self.assertEqual([n["node"] for n in nodes if n["state"] == "up"], ["n1", "stranger"])
        program.stop()
        self.stop("n2")
        self.do("n2", "sh", "-c", "rm -rf /var/lib/ssi && mv /var/lib/ssi.own /var/lib/ssi")
        # It has a vote, of two: that is taken before it stops.
        self.do("n1", "ssi_remove_nodes", "stranger")
        self.leave("n3")
        self.member("n2")
        self.assertEqual(self.do("n1", "ssi-run", "--node", "n2", "hostname"), "n2\n")

    def of_version(self, version, name):
        """The program as it would be if it spoke that version of the protocol."""
        with open(shutil.which(name), "rb") as f:
            program = f.read()
        for protocol in [b"\x05ssi/", b"\x0assi-join/"]:
            self.assertIn(protocol + b"1", program)
            program = program.replace(protocol + b"1", protocol + b"%d" % version)
        path = f"/shared/work/{version}/{name}"
        self.lab.run("n1", "sh", "-c", 'mkdir -p "${1%/*}"; cat >"$1"; chmod 755 "$1"', "sh", path,
                     user="root", input=program, check=True)
        return path

    def test_a_node_of_a_newer_or_an_older_version_is_told_apart_and_harms_nobody(self):
        self.member("n2")
        for version in [2, 0]:
            with self.subTest(version=version):
                token = self.token()
                r = self.lab.run("n3", self.of_version(version, "ssi-admin"), "join", "--address",
                                 "10.77.0.3", token, user="root")
                self.assert_result(r, 8, "another version")
                self.assertEqual(self.lab.run("n3", "ls", "/var/lib/ssi/node.pem", user="root").status, 2)
                self.stop("n2")
                self.boot("n2", self.of_version(version, "ssid"))
                until(lambda: "10.77.0.2 was refused: it speaks another version of the protocol" in
                      self.lab.logs("n1"), 20)  # once a minute
                for tool in [("ssi-admin", "status"), ("ssi-nodes",)]:
                    until(lambda t=tool: b"it speaks another version of the protocol" in
                          self.lab.run("n2", *t, user="root").err, 20)
                self.assertEqual(self.do("n1", "ssi-run", "uname", "-n"), "n1\n")
                self.stop("n2")
                self.member("n2")
                self.assertEqual(self.do("n1", "ssi-run", "--node", "n2", "hostname"), "n2\n")
                # The token was not spent on it.
                self.assert_result(self.join("n3", token, "--node", f"of-{version}"), 0)
                self.forget("n3")

    def test_many_come_and_go_in_a_row(self):
        self.member("n2")
        for _ in range(5):
            self.stop("n2")
            until(lambda: self.state("n1", "n2") in ("left", "lost"), 20)
            self.member("n2")
        # Each time with a new name: PIDs are not used up, and nothing of it is left behind.
        for i in range(3):
            self.assert_result(self.join("n3", self.token(), "--node", f"guest-{i}"), 0)
            self.boot("n3")
            self.do("n3", "ssi-admin", "status", "--wait", "20")
            self.assertEqual(self.do("n3", "ssi-run", "echo", "works"), "works\n")
            self.stop("n3")
            self.assertEqual(self.lab.run("n1", "ssi_remove_nodes", f"guest-{i}", user="root").status,
                             0)
            self.forget("n3")
        self.assertEqual(self.state("n1", "n2"), "up")


if __name__ == "__main__":
    lab.main()
