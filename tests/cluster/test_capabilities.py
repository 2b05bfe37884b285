"""What of the cluster a process uses is said by its capabilities, wherever it is."""
import json

import lab
from beats import Beats
from lab import PROGRAMS, until

SETS = ["permitted", "effective", "inheritable_permitted", "inheritable_effective"]
ALWAYS = ["CHANGE_KERRIGHED_CAP", "CAN_MIGRATE", "CHECKPOINTABLE"]
SPREAD = ["CHANGE_KERRIGHED_CAP", "CAN_MIGRATE", "DISTANT_FORK", "CHECKPOINTABLE"]
JOBS = f"seq 40 | xargs -P 8 -I @ {PROGRAMS}/burn 60 @"


def but(names, *gone):
    return [name for name in names if name not in gone]


class Capabilities(Beats):
    def capset(self, *words, node="n1", **more):
        return self.lab.run(node, "ssi-capset", *words, **more)

    def change(self, *words, **more):
        r = self.capset(*words, **more)
        self.assertEqual((r.status, r.out, r.err), (0, b"", b""), r)

    def sets(self, pid, node="n1"):
        """permitted, effective, inheritable permitted, inheritable effective; and where it is."""
        said = json.loads(self.capset("--json", str(pid), node=node, check=True).text)
        self.assertEqual((said["version"], said["pid"]), (1, pid))
        return [said[name] for name in SETS], said["node"]

    def shell(self, *options, node="n1", **more):
        """A shell that does as it is told; (running, pid)."""
        running = self.start(node, "ssi-run", *options, "-o", "@ID@", "bash", cwd="/shared/work", **more)
        return running, running.app()

    def said(self, running, command="ssi-capset --json"):
        """What a command in the shell says of the shell."""
        text = running.ask(f"{command}; echo status $?", r"(?s)(.*)status \d+\n").group(1)
        said = json.loads(text)
        return [said[name] for name in SETS]

    def child(self, running, command="sleep 1000"):
        return int(running.ask(f"{command} & echo child $!", r"child (\d+)").group(1))

    def end(self, running, status=0):
        running.write("kill $(jobs -p) 2>/dev/null; exit 0\n")
        self.assertEqual(running.result(20).status, status)

    def test_a_shell_sees_and_changes_its_own(self):
        running, pid = self.shell()
        self.assertEqual(self.said(running), [ALWAYS] * 4)
        before = self.child(running)
        running.ask("ssi-capset -CHECKPOINTABLE; echo status $?", "status 0")
        less = but(ALWAYS, "CHECKPOINTABLE")
        self.assertEqual(self.said(running), [ALWAYS, less, ALWAYS, less])
        running.ask("ssi-capset -e +CHECKPOINTABLE -i 03 -d CAP_CHANGE_KERRIGHED_CAP; echo status $?", "status 0")
        mine = [ALWAYS, ALWAYS, but(ALWAYS, "CHECKPOINTABLE"), ["CHANGE_KERRIGHED_CAP"]]
        born = [mine[2], mine[3], mine[2], mine[3]]
        self.assertEqual(self.said(running), mine)
        self.assertEqual(self.said(running, "(ssi-capset --json; true)"), born)
        # Seen from elsewhere; and who was born before is as he was.
        self.assertEqual(self.sets(pid, "n2"), (mine, "n1"))
        self.assertEqual(self.sets(before, "n3"), ([ALWAYS] * 4, "n1"))
        # An orphan has what it was born with, and so has its child.
        orphan = int(running.ask("bash -c 'bash -c \"sleep 1000; :\" & echo orphan $!'", r"orphan (\d+)").group(1))
        self.assertEqual(self.sets(orphan), (born, "n1"))
        child = until(lambda: [p for p, of in self.lab.processes().items() if of["ppid"] == orphan])[0]
        self.assertEqual(self.sets(child), (born, "n1"))
        self.lab.run("n1", "ssi-run", "kill", str(orphan), str(child), str(before), check=True)
        text = self.capset(str(pid)).text.splitlines()
        self.assertEqual(text[0], f"{pid} on n1")
        self.assertEqual(text[1].split(), ["permitted", "0023", ",".join(ALWAYS)])
        self.end(running)

    def test_what_may_not_be_is_said_in_one_line(self):
        running, pid = self.shell()
        for words, status, why in [
                (["+DISTANT_FORK"], 3, "is not permitted DISTANT_FORK, which only ssi-run --spread begins with"),
                (["-e", "+FORK_DELAY"], 5, "there is nothing behind FORK_DELAY here"),
                (["-p", "-CAN_MIGRATE"], 2, "CAN_MIGRATE would be in its effective set and not in its permitted one")]:
            self.assert_result(self.capset(*words, str(pid)), status, f"^ssi-capset: process {pid}: .*{why}$")
        self.assert_result(self.capset("-CAN_MIGRATE", str(pid), user="other"), 3,
                           f"^ssi-capset: process {pid} is another user's$")
        self.assertEqual(self.sets(pid), ([ALWAYS] * 4, "n1"))
        self.assert_result(self.capset(), 4, "no process of the cluster: name a PID$")
        self.assert_result(self.capset("4000000"), 4, "4000000")
        self.change("-CAN_MIGRATE", str(pid), user="root", node="n2")
        # For good.
        self.assertEqual(self.capset("-e", "-CHANGE_KERRIGHED_CAP", str(pid)).status, 2)
        self.change("-f", "-e", "-CHANGE_KERRIGHED_CAP", str(pid))
        self.assert_result(self.capset("+CAN_MIGRATE", str(pid), user="root"), 3, "has given up CHANGE_KERRIGHED_CAP$")
        self.assertEqual(self.sets(pid)[0][1], ["CHECKPOINTABLE"])
        self.end(running)

    def test_who_may_not_move_stays(self):
        running, pid = self.beat()
        self.change("-CAN_MIGRATE", str(pid))
        for options in [[], ["-n"]]:
            self.assert_result(self.lab.run("n2", "ssi-migrate", *options, str(pid), "n3"), 5,
                               rf"process {pid} cannot move: {pid} \(beat\): lacks the capability CAN_MIGRATE")
        self.assertEqual(self.lab.run("n2", "ssi-checkpoint", "--dir", "/shared/work", str(pid)).status, 0)
        self.assertEqual(self.assert_one(pid), "n1")
        self.change("+CAN_MIGRATE", str(pid), node="n3")
        self.assertEqual(self.lab.run("n2", "ssi-migrate", str(pid), "n3").status, 0)
        self.assertEqual(self.assert_one(pid), "n3")
        Beats.end(self, running, pid)

    def test_who_may_not_be_saved_is_not(self):
        running, pid = self.beat()
        self.change("-CHECKPOINTABLE", str(pid))
        self.assert_result(self.lab.run("n2", "ssi-checkpoint", str(pid)), 5,
                           rf"process {pid} cannot be saved: {pid} \(beat\): lacks the capability CHECKPOINTABLE")
        self.assertEqual(self.assert_one(pid), "n1")
        self.assertEqual(self.lab.run("n2", "ssi-migrate", str(pid), "n2").status, 0)
        Beats.end(self, running, pid)

    def test_they_go_with_a_process(self):
        running, pid = self.shell()
        running.ask("ssi-capset -e -CHECKPOINTABLE -i 03 -d 01; echo status $?", "status 0")
        child = self.child(running, "bash -c 'sleep 1000; :'")
        mine = [ALWAYS, but(ALWAYS, "CHECKPOINTABLE"), ["CHANGE_KERRIGHED_CAP", "CAN_MIGRATE"], ["CHANGE_KERRIGHED_CAP"]]
        born = [mine[2], mine[3], mine[2], mine[3]]
        running.ask("trap 'sleep 1000 &' USR1; echo status $?", "status 0")
        self.change("-e", "+CAN_MIGRATE", str(child))
        below = until(lambda: [p for p, of in self.lab.processes().items() if of["ppid"] == child])[0]
        self.change("-e", "+CAN_MIGRATE", str(below))
        moved = [mine[2], mine[2], mine[2], mine[3]]
        for node in ["n2", "n3", "n1", "n2"]:
            r = self.lab.run("n1", "ssi-migrate", str(pid), node)
            self.assertEqual(r.status, 0, r)
            self.assertEqual(self.sets(pid), (mine, node))
            self.assertEqual(self.sets(child), (moved, node))
            new = self.child(running)
            self.assertEqual(self.sets(new), (born, node))
            self.lab.run("n1", "ssi-run", "--node", node, "kill", str(new), check=True)
            running.ask("wait -n; echo status $?", "status")
        for node in ["n1", "n2"]:
            self.await_successor(node, self.lab.kill_ssid(node))
            self.assertEqual(self.sets(pid, "n3"), (mine, "n2"))
            self.assertEqual(self.sets(child, "n3"), (moved, "n2"))
        self.end(running)

    def test_they_come_back_with_what_was_saved(self):
        running, pid = self.shell(node="n2")
        running.ask("ssi-capset -d -CHECKPOINTABLE; echo status $?", "status 0")
        mine = [ALWAYS, ALWAYS, ALWAYS, but(ALWAYS, "CHECKPOINTABLE")]
        r = self.lab.run("n1", "ssi-checkpoint", "--json", "-k", str(pid))
        self.assertEqual(r.status, 0, r)
        running.result(20)
        for node in ["n2", "n3"]:
            again = self.start("n1", "ssi-restart", "--on", node, json.loads(r.text)["name"])
            until(lambda n=node: self.lab.where(pid) == n)
            self.assertEqual(self.sets(pid), (mine, node))
            self.lab.run("n1", "ssi-run", "--node", node, "kill", "-9", str(pid), check=True)
            self.assertEqual(again.result(20).status, 137)
            until(lambda: pid not in self.lab.processes())

    def where(self, running):
        """On which nodes the shell's jobs have run."""
        return {line.split()[1] for line in
                running.ask(f"{JOBS}; echo status $?", r"(?s)(.*)status 0\n", 60).group(1).decode().splitlines()}

    def test_programs_begin_elsewhere_if_they_may(self):
        running, pid = self.shell("--spread")
        self.assertEqual(self.said(running), [SPREAD] * 4)
        self.assertEqual(self.where(running), {"n1", "n2", "n3"})
        running.ask("ssi-capset -DISTANT_FORK; echo status $?", "status 0")
        self.assertEqual(self.where(running), {"n1"})
        self.await_successor("n1", self.lab.kill_ssid("n1"))
        self.assertEqual(self.where(running), {"n1"})
        running.ask("ssi-capset +DISTANT_FORK; echo status $?", "status 0")
        self.assertEqual(self.where(running), {"n1", "n2", "n3"})
        self.end(running)
        self.nothing_is_left()

    def test_who_begins_elsewhere_has_them_too(self):
        running, _ = self.shell("--spread")
        less = but(SPREAD, "CHECKPOINTABLE")
        for change, born in [(None, SPREAD), ("-d -CHECKPOINTABLE", less), ("-d +CHECKPOINTABLE", SPREAD)]:
            if change:
                running.ask(f"ssi-capset {change}; echo status $?", "status 0")
            running.write(f"for i in 1 2 3 4 5 6; do {PROGRAMS}/burn 600000 $i >/dev/null & sleep 0.3; done\n")

            def away():
                return [p for p in self.lab.processes().values()
                        if p["command"].startswith(f"{PROGRAMS}/burn") and p["node"] != "n1"]
            for p in until(lambda: len(away()) >= 2 and away(), 20, away):
                self.assertEqual(self.sets(int(p["pid"])), ([SPREAD, born, SPREAD, born], p["node"]))
            running.ask("kill $(jobs -p); wait; echo status $?", "status")
        self.end(running)
        self.nothing_is_left()


if __name__ == "__main__":
    lab.main()
