"""Nodes with few PIDs: whatever they do, nobody is born with a number of another node."""
import tempfile

import lab
from beats import Beats
from lab import PROGRAMS, until

BLOCK = 2048


class Pids(Beats):
    @classmethod
    def setUpClass(cls):
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as config:
            config.write(f"[cluster]\npids_max = {BLOCK}\n")
            config.flush()
            cls.lab = lab.Lab(cls.N_NODES, "--config", config.name)

    def do(self, node, *command):
        return self.lab.run(node, *command, user="root", check=True).text

    def storm(self, node, count=2000):
        return self.start(node, "ssi-run", "--node", node, f"{PROGRAMS}/forks", "storm", str(count))

    def stormed(self, running):
        r = running.result(300)
        self.assertEqual(r.status, 0, r)
        lowest, highest, failed = (int(word) for word in r.text.split())
        self.assertEqual(failed, 0)
        # All of one block.
        self.assertEqual(lowest // BLOCK, highest // BLOCK, r)
        return lowest // BLOCK

    def in_init(self, node, script):
        """In the space, but no application."""
        return self.do(node, "sh", "-c", 'exec nsenter --target "$(pgrep -xo ssi-init)" --pid '
                       '--mount sh -c "$1"', "sh", script)

    def test_storms_on_all_nodes_stay_in_blocks_of_their_own(self):
        storms = [self.storm(node) for node in self.lab.nodes]
        blocks = [self.stormed(running) for running in storms]
        self.assertEqual(len(set(blocks)), len(blocks), blocks)
        for node in self.lab.nodes:
            self.assertNotIn("were given out outside", self.lab.logs(node, fresh=True))

    def test_forks_do_not_notice_that_ssid_is_killed(self):
        running = self.storm("n2", 3000)
        for _ in range(3):
            old = self.ssid_of("n2")
            self.lab.kill_ssid("n2")
            self.await_successor("n2", old)
        self.stormed(running)

    def numbers(self, path):
        return [int(word) for word in self.lab.run("n1", "cat", path).text.split("\n")[:-1]]

    def test_a_program_that_moves_forks_within_the_block_of_where_it_is(self):
        path = "/shared/work/steps"
        running = self.start("n1", "ssi-run", "--node", "n1", "-o", "@ID@", f"{PROGRAMS}/forks",
                             "step", path)
        pid = running.app()
        blocks = []
        for node in ["n1", "n2", "n3", "n1"]:
            if blocks:
                r = self.lab.run("n3", "ssi-migrate", str(pid), node)
                self.assertEqual(r.status, 0, r)
            seen = len(self.numbers(path))
            until(lambda: len(self.numbers(path)) > seen + 10)  # pylint: disable=cell-var-from-loop
            found = {number // BLOCK for number in self.numbers(path)[seen + 1:]}
            self.assertEqual(len(found), 1, found)
            blocks += found
            # One filter, however often it was moved.
            status = self.lab.status_of(node, pid)
            self.assertEqual((status["Seccomp"], status["Seccomp_filters"]), ("2", "1"))
        self.assertEqual(blocks[0], pid // BLOCK)
        self.assertEqual(blocks[3], blocks[0])
        self.assertEqual(len(set(blocks)), 3, blocks)
        self.lab.run("n1", "ssi-run", "kill", "-9", str(pid))
        self.assertEqual(running.result(20).status, 137)

    def test_a_filter_of_its_own_is_told_from_ours(self):
        running = self.start("n1", "ssi-run", "-o", "@ID@", f"{PROGRAMS}/holder", "filter")
        running.expect("^holding$")
        r = self.lab.run("n3", "ssi-migrate", str(running.app()), "n2")
        self.assert_result(r, 5, "holder.: has seccomp filters of its own")
        running.ask("still", "^still$")
        running.close_input()
        self.assertEqual(running.result(20).status, 42)

    def test_a_program_is_saved_and_revived_and_forks_on(self):
        path = "/shared/work/saved"
        running = self.start("n1", "ssi-run", "--node", "n1", "-o", "@ID@", f"{PROGRAMS}/forks",
                             "step", path)
        pid = running.app()
        r = self.lab.run("n1", "ssi-checkpoint", "--kill", str(pid))
        self.assertEqual(r.status, 0, r)
        running.result(10)
        seen = len(self.numbers(path))
        r = self.lab.run("n3", "ssi-restart", "-b", "--on", "n2", str(pid))
        self.assertEqual(r.status, 0, r)
        until(lambda: len(self.numbers(path)) > seen + 10)
        found = {number // BLOCK for number in self.numbers(path)[seen + 1:]}
        self.assertEqual(len(found), 1, found)
        self.assertNotIn(pid // BLOCK, found)
        # And comes home, where a shadow holds its number.
        r = self.lab.run("n3", "ssi-migrate", str(pid), "n1")
        self.assertEqual(r.status, 0, r)
        seen = len(self.numbers(path))
        until(lambda: len(self.numbers(path)) > seen + 10)
        self.assertEqual({number // BLOCK for number in self.numbers(path)[seen + 1:]},
                         {pid // BLOCK})
        self.lab.run("n1", "ssi-run", "kill", "-9", str(pid))
        until(lambda: pid not in self.lab.processes())

    def test_a_child_that_comes_home_in_place_asks_as_before(self):
        path = "/shared/work/child"
        running = self.start("n1", "ssi-run", "--node", "n1", "-o", "@ID@", "sh", "-c",
                             f"{PROGRAMS}/forks step {path} & wait")
        pid = running.app()

        def child():
            return [p for p, row in self.lab.processes().items() if int(row["ppid"]) == pid]

        [child_pid] = until(child)
        for node in ["n2", "n1"]:
            r = self.lab.run("n3", "ssi-migrate", str(child_pid), node)
            self.assertEqual(r.status, 0, r)
            self.assertEqual(self.lab.where(child_pid), node)
        seen = len(self.numbers(path))
        until(lambda: len(self.numbers(path)) > seen + 10)
        self.assertEqual({number // BLOCK for number in self.numbers(path)[seen + 1:]},
                         {pid // BLOCK})
        status = self.lab.status_of("n1", child_pid)
        self.assertEqual((status["Seccomp"], status["Seccomp_filters"]), ("2", "1"))
        self.lab.run("n1", "ssi-run", "kill", "-9", str(child_pid))
        self.assertEqual(running.result(20).status, 0)

    def test_set_uid_programs_are_what_they_are(self):
        self.do("n2", "sh", "-c", "install -m 4755 /usr/bin/id /var/id")
        r = self.lab.run("n2", "ssi-run", "--node", "n2", "/var/id", "-u")
        self.assertEqual((r.status, r.text), (0, "0\n"), r)

    def test_whoever_is_born_outside_is_killed_and_told_of(self):
        running, pid = self.beat(node="n3")
        # The cursor may be moved back before it forks; and it may be killed before it is another program.
        until(lambda: self.in_init("n3", "echo 3000000 >/proc/sys/kernel/ns_last_pid; sleep 1 & wait; true") or
              "was born outside of this node's PIDs" in self.lab.logs("n3", fresh=True))
        self.assertRegex(self.lab.logs("n3", fresh=True),
                         r"process 300000\d \(s(h|leep)\) was born outside of this node's PIDs as 300000\d, killed")
        self.assertEqual(self.assert_one(pid), "n3")
        self.end(running, pid)
        self.stormed(self.storm("n3", 50))

    def test_a_node_without_any_number_left_refuses_and_recovers(self):
        running = self.start("n2", "ssi-run", "--node", "n2", "-o", "@ID@", f"{PROGRAMS}/forks",
                             "fill", str(2 * BLOCK))
        self.assertIn(int(running.expect(r"^(\d+)\n", 60)[1]), range(BLOCK // 2, BLOCK))
        # There may be room for one that does not fork itself.
        for _ in range(5):
            r = self.lab.run("n1", "ssi-run", "--node", "n2", "sh", "-c", "sleep 1000 >&- 2>&- &")
            if r.status == 1:
                break
        print(f"# {r.err.decode().strip()}", flush=True)
        self.assertEqual(r.status, 1, r)
        self.assertRegex(r.err.decode(), r"^ssi-run: .{10,}\n$")
        # Its ssid is as much in touch as before, and goes where the others' numbers are.
        self.assertNotIn("out of touch", self.lab.logs("n2", fresh=True))
        self.assertEqual(self.lab.run("n2", "ssi-run", "--node", "n1", "true").status, 0)
        self.lab.run("n2", "pkill", "-x", "forks|sleep", user="root")
        running.result(20)
        until(lambda: self.lab.run("n1", "ssi-run", "--node", "n2", "true").status == 0)


lab.main()
