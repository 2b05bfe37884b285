"""Whatever dies in the middle: one live copy remains, soon, and the user is told."""
import json
import re
import subprocess
import threading
import time

import lab
from beats import Beats
from lab import PROGRAMS, KnownBug, known_bug, until


def numbers(first, last):
    return "".join(f"{k}\n" for k in range(first, last + 1)).encode()


class Faults(Beats):
    # ssid dies while nothing is moved.

    def test_a_pipeline_does_not_notice_that_ssid_dies(self):
        for where in ["n1", "n2"]:
            running = self.start("n1", "ssi-run", "-o", "@ID@", "--node", where, "sh", "-c",
                                 f"{PROGRAMS}/count 6000 3000 0 | cat | cat; read line; "
                                 "echo $line; exit 7")
            running.expect("^100$")
            pid = running.app()
            for node in [where, "n1", where]:
                old = self.lab.kill_ssid(node)
                self.await_successor(node, old)
                ps = self.lab.processes("n3")
                self.assertEqual(ps[pid]["node"], where)
                self.assertIn(f"{PROGRAMS}/count 6000 3000 0", {p["command"] for p in ps.values()})
            running.write("the end\n")
            running.expect("^6000$", 60)
            r = running.result(30)
            self.assertEqual((r.status, r.err), (7, b""), where)
            self.assertTrue(r.out == numbers(1, 6000) + b"the end\n", (where, len(r.out)))

    def test_a_program_that_ends_while_there_is_no_ssid_is_waited_for(self):
        script = ("kill -9 $(cat /run/ssi/ssid.pid); kill $(pgrep -f '[e]xit 33'); sleep 0.3; "
                  "kill -9 $(cat /run/ssi/ssid.pid)")
        for node in ["n1", "n2"]:
            running = self.start("n1", "ssi-run", "-o", "@ID@", "sh", "-c",
                                 "trap 'exit 33' TERM; echo up; while :; do sleep 0.02; done")
            running.expect("^up$")
            r = self.lab.run("n1", "ssi-migrate", str(running.app()), node)
            self.assertEqual(r.status, 0, r)
            old = self.ssid_of(node)
            self.lab.run(node, "sh", "-c", script, user="root")
            self.assertEqual(running.result(30).status, 33, node)
            self.await_successor(node, old)

    def test_a_moved_child_keeps_its_family_when_ssid_dies_at_home_or_away(self):
        running = self.start("n1", "ssi-run", "-o", "@ID@", f"{PROGRAMS}/family")
        child = int(running.expect(r"^child (\d+)$")[1])
        parent = running.app()
        self.assertEqual(self.lab.run("n1", "ssi-migrate", str(child), "n2").status, 0)
        for node in ["n1", "n2"]:
            self.await_successor(node, self.lab.kill_ssid(node))
            running.ask("queue 34 5", rf"^got 34 -1 {parent} {self.lab.uid} 5$")
            running.ask("look", "^events 0 wait 0 0 0$")
        running.ask("queue 15 77", r"^got 15 ")
        running.ask("wait", rf"^events 1 wait {child} 1 77$")

    # ssid dies at each commit point.

    def move_with_fault(self, node, point, teller="n3"):
        """n1 to n2, told on the teller, with ssid of node killed at the point."""
        running, pid = self.beat()
        old = self.ssid_of(node)
        self.arm(node, point, "kill")
        tool = self.start(teller, "ssi-migrate", str(pid), "n2")
        began = time.monotonic()
        r = self.assert_told(tool)
        self.await_successor(node, old)
        at = self.assert_one(pid)
        print(f"# {point}: {r.status} {r.err.decode().strip()}; lives on {at} after "
              f"{time.monotonic() - began:.1f} s", flush=True)
        # What the tool says is so.
        self.assertEqual(r.status == 0, at == "n2", r)
        self.assertRegex((r.out or r.err).decode(), rf"\b{pid}\b.*\bn[12]\b")
        # Nothing is left that would be in the way.
        for target in [n for n in ["n2", "n3", "n1"] if n != at]:
            r = self.lab.run("n3", "ssi-migrate", str(pid), target)
            self.assertEqual(r.status, 0, r)
        self.assert_one(pid)
        self.end(running, pid)

    def test_ssid_dies_at_asked_on_the_source(self):
        self.move_with_fault("n1", "migration.asked")

    def test_ssid_dies_at_frozen_on_the_source(self):
        self.move_with_fault("n1", "migration.frozen")

    def test_ssid_dies_at_shipped_on_the_source(self):
        self.move_with_fault("n1", "migration.shipped")

    def test_ssid_dies_at_paged_on_the_source(self):
        self.move_with_fault("n1", "migration.paged")

    def test_ssid_dies_at_placed_on_the_target(self):
        self.move_with_fault("n2", "migration.placed")

    def test_ssid_dies_at_restored_on_the_source(self):
        self.move_with_fault("n1", "migration.restored")

    def test_ssid_dies_at_committed_on_the_source(self):
        self.move_with_fault("n1", "migration.committed")

    def test_ssid_dies_at_departed_on_the_source(self):
        self.move_with_fault("n1", "migration.departed")

    def test_ssid_dies_at_ready_on_the_target(self):
        self.move_with_fault("n2", "migration.ready")

    def test_ssid_dies_at_commit_taken_on_the_target(self):
        self.move_with_fault("n2", "migration.commit_taken")

    def test_ssid_of_the_tool_dies_and_its_successor_tells(self):
        self.move_with_fault("n1", "migration.shipped", teller="n1")
        self.move_with_fault("n1", "migration.committed", teller="n1")
        self.move_with_fault("n2", "migration.commit_taken", teller="n2")

    def test_ssid_dies_while_a_program_is_saved(self):
        running, pid = self.beat()
        for point, teller in [("checkpoint.frozen", "n3"), ("checkpoint.dumped", "n1"),
                              ("checkpoint.saved", "n3"), ("checkpoint.saved", "n1")]:
            old = self.ssid_of("n1")
            self.arm("n1", point, "kill")
            r = self.start(teller, "ssi-checkpoint", str(pid)).result(45)
            self.assert_result(r, 8, rf"^ssi-checkpoint: .*{pid}.*ssi-checkpoint --list")
            self.await_successor("n1", old)
            self.assertEqual(self.assert_one(pid), "n1", point)
            # What is listed is sound; no half of one lies about.
            listed = json.loads(self.lab.run("n2", "ssi-checkpoint", "--list", "--json").text)
            for c in listed["checkpoints"] or []:
                self.assertEqual(self.lab.run("n2", "ssi-checkpoint", "--inspect", c["name"]).status, 0)
        self.assertEqual(self.lab.run("n3", "ssi-checkpoint", str(pid)).status, 0)
        self.end(running, pid)

    def test_ssid_dies_while_a_program_is_revived(self):
        running, pid = self.beat()
        self.assertEqual(self.lab.run("n3", "ssi-checkpoint", "--kill", str(pid)).status, 0)
        self.assertEqual(running.result(10).status, 137)
        before = len(self.heard())
        old = self.ssid_of("n2")
        self.arm("n2", "checkpoint.restored", "kill")
        self.assert_told(self.start("n3", "ssi-restart", "-b", "--on", "n2", str(pid)))
        self.await_successor("n2", old)
        until(lambda: not self.lab.copies("beat"), 20, lambda: str(self.lab.copies("beat")))
        self.assertEqual(len(self.heard()), before)
        # Its PID is given back when its home hears from the successor.
        said = []

        def revived():
            said.append(self.lab.run("n3", "ssi-restart", "-b", "--on", "n2", str(pid)))
            return said[-1].status == 0
        until(revived, 20, lambda: f"{said[0]} ... {said[-1]}")
        self.assertEqual(self.assert_one(pid), "n2")
        self.lab.run("n2", "ssi-run", "kill", "-9", str(pid), user="root", check=True)
        until(lambda: not self.lab.copies("beat"))

    def child_away(self):
        """A family whose child is on n2; (running, parent, child)."""
        family = self.start("n1", "ssi-run", "-o", "@ID@", f"{PROGRAMS}/family")
        child = int(family.expect(r"^child (\d+)$")[1])
        self.assertEqual(self.lab.run("n1", "ssi-migrate", str(child), "n2").status, 0)
        return family, family.app(), child

    def assert_family(self, family, parent):
        """The parent has noticed nothing, and its signals arrive."""
        family.ask("look", "^events 0 wait 0 0 0$")
        family.ask("queue 34 5", rf"^got 34 -1 {parent} {self.lab.uid} 5$")

    def end_family(self, family, child):
        family.ask("queue 15 77", r"^got 15 ")
        family.ask("wait", rf"^events 1 wait {child} 1 77$")

    def test_a_homecoming_that_is_given_up_leaves_the_shadow_as_it_was(self):
        running, pid = self.beat()
        self.assertEqual(self.lab.run("n1", "ssi-migrate", str(pid), "n2").status, 0)
        for point in ["migration.shipped", "migration.paged", "migration.restored"]:
            self.arm("n2", point, "fail")
            self.assert_result(self.lab.run("n3", "ssi-migrate", str(pid), "n1"), 1, "fault point")
            self.assertEqual(self.assert_one(pid), "n2")
        self.assertEqual(self.lab.run("n3", "ssi-migrate", str(pid), "n1").status, 0)
        self.assertEqual(self.assert_one(pid), "n1")
        self.end(running, pid)

    def test_a_childs_homecoming_that_is_given_up_early_leaves_the_family_as_it_was(self):
        family, parent, child = self.child_away()
        self.arm("n2", "migration.shipped", "fail")
        self.assert_result(self.lab.run("n3", "ssi-migrate", str(child), "n1"), 1, "fault point")
        self.assert_family(family, parent)
        self.assertEqual(self.lab.run("n3", "ssi-migrate", str(child), "n1").status, 0)
        self.assert_family(family, parent)
        self.end_family(family, child)

    def test_a_childs_homecoming_that_is_given_up_late_leaves_the_family_as_it_was(self):
        family, parent, child = self.child_away()
        for point in ["migration.paged", "migration.restored"]:
            self.arm("n2", point, "fail")
            self.assert_result(self.lab.run("n3", "ssi-migrate", str(child), "n1"), 1, "fault point")
            self.assert_family(family, parent)
        self.assertEqual(self.lab.run("n3", "ssi-migrate", str(child), "n1").status, 0)
        self.assert_family(family, parent)
        self.assertEqual(self.lab.where(child), "n1")
        self.end_family(family, child)

    def test_ssid_dies_in_a_childs_homecoming_and_the_family_notices_nothing(self):
        for point in ["migration.shipped", "migration.paged", "migration.restored",
                      "migration.committed"]:
            family, parent, child = self.child_away()
            old = self.ssid_of("n2")
            self.arm("n2", point, "kill")
            self.assert_told(self.start("n3", "ssi-migrate", str(child), "n1"))
            self.await_successor("n2", old)
            self.assert_family(family, parent)
            until(lambda c=child: self.lab.where(c) in ("n1", "n2"), 20)
            self.end_family(family, child)
            family.stop()

    def test_ssid_of_the_home_dies_in_a_homecoming_and_the_next_one_works(self):
        running, pid = self.beat()
        self.assertEqual(self.lab.run("n1", "ssi-migrate", str(pid), "n2").status, 0)
        family, parent, child = self.child_away()
        for back in [pid, child]:
            old = self.ssid_of("n1")
            self.arm("n1", "migration.ready", "kill")
            self.assert_told(self.start("n3", "ssi-migrate", str(back), "n1"))
            self.await_successor("n1", old)
            self.assert_family(family, parent)
            r = self.lab.run("n3", "ssi-migrate", str(back), "n1")
            self.assertEqual(r.status, 0, r)
            self.assert_family(family, parent)
        self.assertEqual(self.assert_one(pid), "n1")
        self.end(running, pid)
        self.end_family(family, child)

    # Others die in the middle.

    def on_first(self, node, program, action, after=0.02):
        """When a process of this name shows up on the node: do it, once; a thread."""
        script = (f"i=0; while [ $i -lt 2000 ]; do p=$(pgrep -o -x {program}) && "
                  f"{{ sleep {after}; {action}; exit 0; }}; i=$((i+1)); sleep 0.005; done; exit 9")
        found = []
        thread = threading.Thread(target=lambda: found.append(
            self.lab.run(node, "sh", "-c", script, user="root").status))
        thread.start()
        return thread, found

    def move_without_criu(self, side):
        """Moves until one fails, and the next one: criu may have done its work when it is killed."""
        running, pid = self.beat(100)
        for _ in range(10):
            thread, found = self.on_first(side, "criu", "kill -9 $p", after=0)
            time.sleep(0.5)
            r = self.assert_told(self.start("n3", "ssi-migrate", str(pid), "n2"))
            thread.join()
            self.assertEqual(found, [0], f"criu was not met: {r}")
            if r.status:
                break
            self.assertEqual(self.lab.run("n3", "ssi-migrate", str(pid), "n1").status, 0)
        self.assertNotEqual(r.status, 0)
        self.assertEqual(self.assert_one(pid), "n1")
        return running, pid, self.lab.run("n3", "ssi-migrate", str(pid), "n2")

    def test_criu_is_killed_on_the_target(self):
        running, pid, r = self.move_without_criu("n2")
        self.assertEqual(r.status, 0, r)
        self.assertEqual(self.assert_one(pid), "n2")
        self.end(running, pid)

    def test_criu_is_killed_on_the_source(self):
        try:
            running, pid, r = self.move_without_criu("n1")
        except AssertionError as e:
            if "does not live" not in str(e):
                raise
            raise KnownBug("a process in which criu's parasite ran when criu was killed may "
                           "die of it") from e
        self.assert_one(pid)
        if r.status == 5 and b"CRIUMFD" in r.err:
            raise KnownBug("what criu had mapped into the process when it was killed stays "
                           "there, and the process is refused from then on")
        self.assertEqual(r.status, 0, r)
        self.end(running, pid)

    def test_the_moving_process_is_killed(self):
        running, pid = self.beat(100)
        thread, found = self.on_first("n1", "criu", "kill -9 $(pgrep -x beat)")
        time.sleep(0.5)
        tool = self.start("n3", "ssi-migrate", str(pid), "n2")
        self.assert_told(tool)
        thread.join()
        self.assertEqual(found, [0])
        self.assertEqual(running.result(30).status, 137)
        until(lambda: not self.lab.copies("beat"), 20, lambda: str(self.lab.copies("beat")))
        until(lambda: pid not in self.lab.processes())
        self.assert_never_two()

    def test_the_tools_are_killed(self):
        running, pid = self.beat(60)
        for target in ["n2", "n3", "n1"]:
            tool = self.start("n3", "ssi-migrate", str(pid), target)
            time.sleep(0.25)
            tool.signal("KILL")
            tool.result(10)
            self.assert_one(pid)
        # Its own tool, while it moves.
        target = "n2" if self.lab.where(pid) != "n2" else "n1"
        tool = self.start("n3", "ssi-migrate", str(pid), target)
        running.signal("KILL")
        running.result(10)
        self.assert_told(tool)
        self.assert_one(pid)
        target = "n3" if self.lab.where(pid) != "n3" else "n2"
        r = self.lab.run("n1", "ssi-migrate", str(pid), target)
        self.assertEqual(r.status, 0, r)
        self.assertEqual(self.assert_one(pid), target)

    def test_ssi_run_ends_in_the_middle_and_its_program_moves(self):
        running = self.start("n3", "ssi-run", "-o", "@ID@", "--node", "n1", "sh", "-c",
                             "while read line; do echo $line; done; sleep 1; "
                             "echo end of file >/shared/work/end_of_file; sleep 60")
        running.ask("up", "^up$")
        pid = running.app()
        tool = self.in_the_middle(pid, "migration.frozen", lambda: (
            running.write("last\n"), time.sleep(0.3), running.signal("KILL"), time.sleep(0.3)))
        running.result(10)
        r = tool.result(30)
        self.assertEqual(r.status, 0, r)
        until(lambda: self.lab.run("n1", "cat", "/shared/work/end_of_file").text)
        self.assertEqual(self.lab.where(pid), "n2")

    def test_streams_are_whole_when_ssid_dies_in_the_middle_of_a_move(self):
        for point in ["migration.frozen", "migration.shipped", "migration.restored",
                      "migration.committed", "migration.departed"]:
            running = self.start("n1", "ssi-run", "-o", "@ID@", "sh", "-c",
                                 f"{PROGRAMS}/count 1500 2000 0; read line; echo $line; exit 7")
            running.expect("^100$")
            pid = running.app()
            for source, target in [("n1", "n2"), ("n2", "n3")]:
                if self.lab.where(pid) != source:
                    continue
                old = self.ssid_of(source)
                self.arm(source, point, "kill")
                self.assert_told(self.start("n3", "ssi-migrate", str(pid), target))
                self.await_successor(source, old)
                until(lambda p=pid: self.lab.processes().get(p, {}).get("s", "M") != "M")
            running.write("the end\n")
            running.expect("^the end$", 30)
            r = running.result(30)
            self.assertEqual((r.status, r.err), (7, b""), point)
            self.assertTrue(r.out == numbers(1, 1500) + b"the end\n", (point, len(r.out)))

    def test_a_child_that_moves_on_leaves_its_parent_the_streams(self):
        family = self.start("n1", "ssi-run", "-o", "@ID@", "sh", "-c",
                            f"read line; exec {PROGRAMS}/family")
        parent = family.app()
        self.assertEqual(self.lab.run("n1", "ssi-migrate", str(parent), "n2").status, 0)
        family.write("\n")
        child = int(family.expect(r"^child (\d+)$")[1])
        for target in ["n3", "n2", "n3", "n2"]:
            r = self.lab.run("n1", "ssi-migrate", str(child), target)
            self.assertEqual(r.status, 0, r)
            self.assertEqual(self.lab.where(child), target)
            self.assert_family(family, parent)
        self.end_family(family, child)

    # Power and wires, at a point where ssid of the source waits.

    def in_the_middle(self, pid, point, action, target="n2", options=(), teller="n3"):
        """Do it while the move from n1 stands at the point; the tool."""
        ssid = self.ssid_of("n1")
        self.arm("n1", point, "stop")
        tool = self.start(teller, "ssi-migrate", *options, str(pid), target)
        until(lambda: ") T " in self.lab.run("n1", "cat", f"/proc/{ssid}/stat").text, 20,
              lambda: f"the move did not come to {point}")
        action()
        self.lab.run("n1", "kill", "-CONT", ssid, user="root")
        return tool

    def test_who_would_stand_still_for_too_long_stays(self):
        running, pid = self.beat()
        # No moves to go by: then the prediction is always the same.
        self.await_successor("n1", self.lab.kill_ssid("n1"))
        dry = json.loads(self.lab.run("n3", "ssi-migrate", "--dry-run", "--json", str(pid), "n2", check=True).text)
        self.assertEqual((dry["from_moves"], dry["status"]), (0, 0), dry)
        self.assertLess(dry["frozen_ms"], 900)
        refused = [self.lab.run("n3", "ssi-migrate", *options, "--max-downtime", "20", str(pid), "n2")
                   for options in [["--dry-run"], ["--explain"], []]]
        for r in refused:
            self.assert_result(r, 7, "it would stand still for some [0-9]+ ms, more than 20")
            self.assertEqual(r.err, refused[0].err)
        # What was foreseen as short enough, and is not: before it is dumped, and while it is restored.
        for point in ["migration.frozen", "migration.shipped"]:
            tool = self.in_the_middle(pid, point, lambda: time.sleep(1.05), options=["--max-downtime", "1000"])
            self.assert_result(tool.result(45), 7, "it would stand still for longer than 1000 ms")
            self.assertEqual(self.assert_one(pid), "n1")
        r = self.lab.run("n3", "ssi-migrate", "--max-downtime", "60000", str(pid), "n2")
        self.assertEqual((r.status, self.assert_one(pid)), (0, "n2"), r)
        self.end(running, pid)

    def test_who_has_not_moved_in_time_stays(self):
        running, pid = self.beat()
        tool = self.in_the_middle(pid, "migration.asked", lambda: time.sleep(1.2), options=["--timeout", "1"])
        self.assert_result(tool.result(45), 7, f"process {pid} has not moved to n2 in the time given")
        self.assertEqual(self.assert_one(pid), "n1")
        self.end(running, pid)

    def test_what_is_in_the_way_for_a_moment_only_is_waited_for(self):
        running = self.start("n1", "ssi-run", "-o", "@ID@", "sh", "-c",
                             "exec 9>/shared/work/lock; flock 9; echo held; read line; "
                             "exec 9>&-; echo free; read line")
        running.expect("^held$")
        pid = running.app()
        # It stays: so it is told.
        self.assert_result(self.lab.run("n3", "ssi-migrate", str(pid), "n2"), 5,
                           "file lock on /shared/work/lock")
        r = self.in_the_middle(pid, "migration.refused",
                               lambda: running.ask("", "^free$")).result(45)
        self.assertEqual(r.status, 0, r)
        self.assertEqual(self.lab.where(pid), "n2")
        running.write("\n")
        self.assertEqual(running.result(20).status, 0)

    def test_the_target_loses_power_before_the_commit(self):
        for point in ["migration.shipped", "migration.paged", "migration.restored"]:
            running, pid = self.beat()
            tool = self.in_the_middle(pid, point, lambda: self.lab.command("kill", "n2"))
            r = self.assert_told(tool)
            self.assertNotEqual(r.status, 0)
            self.lab.command("start", "n2")
            self.lab.settle()
            self.assertEqual(self.assert_one(pid), "n1", point)
            r = self.lab.run("n3", "ssi-migrate", str(pid), "n2")
            self.assertEqual(r.status, 0, r)
            self.end(running, pid)

    def lose_in_the_middle(self, lost, home, target, point):
        """A node loses its power in a move from n1; where it lives then, None: nowhere."""
        running, pid = self.beat(node=home)
        if home != "n1":
            self.assert_result(self.lab.run("n3", "ssi-migrate", str(pid), "n1"), 0)
        tool = self.in_the_middle(pid, point, lambda: self.lab.command("kill", lost), target,
                                  teller="n2" if lost == "n3" else "n3")
        r = self.assert_told(tool)
        self.lab.command("start", lost)
        self.lab.prepare_node(lost)
        self.lab.settle()
        start = len(self.heard())
        # Its home knows.
        until(lambda: len(self.heard()) > start + 5 or pid not in self.lab.processes(), 30,
              lambda: f"it does not live: {self.lab.processes()[pid]}")
        at = self.assert_one(pid) if pid in self.lab.processes() else None
        print(f"# {point}, {lost} lost: {r.status} {r.err.decode().strip()}; lives on {at}", flush=True)
        if at:
            self.lab.run("n3", "ssi-run", "kill", "-9", str(pid), user="root")
        if home == lost:
            running.stop()
        else:
            self.assertEqual(running.result(20).status, 137)
        until(lambda: not self.lab.copies("beat"), 20)
        self.nothing_is_left()
        return r.status, at

    def test_the_source_loses_power_in_a_move(self):
        for point in ["migration.shipped", "migration.restored", "migration.committed", "migration.departed"]:
            status, at = self.lose_in_the_middle("n1", "n3", "n2", point)
            # What was not whole on the target is lost with the source.
            self.assertIn(at, {"migration.shipped": [None], "migration.departed": ["n2"]}.get(point, [None, "n2"]))
            if status == 0:
                self.assertEqual(at, "n2", point)

    def test_the_home_loses_power_in_a_move(self):
        for point in ["migration.frozen", "migration.restored", "migration.committed", "migration.departed"]:
            status, at = self.lose_in_the_middle("n3", "n3", "n2", point)
            self.assertEqual(at, "n1" if status else "n2", point)

    def test_the_target_loses_power_after_the_commit(self):
        _, at = self.lose_in_the_middle("n2", "n3", "n2", "migration.departed")
        self.assertIsNone(at)

    def test_a_short_cut_in_the_middle_is_got_over(self):
        for point in ["migration.frozen", "migration.paged", "migration.restored"]:
            running, pid = self.beat()
            tool = self.in_the_middle(pid, point, lambda: self.lab.command("cut", "n1", "n2"))
            time.sleep(0.7)
            self.lab.command("heal")
            self.assert_told(tool)
            self.lab.settle()
            self.assert_one(pid)
            self.end(running, pid)

    def test_a_long_cut_in_the_middle_leaves_one_copy(self):
        for point in ["migration.frozen", "migration.paged", "migration.restored"]:
            running, pid = self.beat()
            tool = self.in_the_middle(pid, point, lambda: self.lab.command("cut", "n1", "n2"))
            time.sleep(5)
            self.lab.command("heal")
            self.assert_told(tool)
            self.lab.settle()
            self.assert_one(pid)
            self.end(running, pid)

    # Two at once.

    def test_a_move_before_a_new_ssid_has_heard_of_the_cluster(self):
        running, pid = self.beat()
        for _ in range(3):
            for node in self.lab.nodes:
                self.lab.kill_ssid(node)
            # Those who are not asked may have no ssid yet: that is another fault.
            for node in self.lab.nodes:
                until(lambda n=node: b"no ssid answers" not in
                      self.lab.run(n, "ssi-admin", "status").err)
            here = self.heard()[-1][1]
            target = "n2" if here == "n1" else "n1"
            r = self.lab.run("n3", "ssi-migrate", str(pid), target)
            if r.status:
                self.assert_result(r, 8, "out of (touch with )?the cluster|is not up")
            self.lab.settle()
            self.assertEqual(self.assert_one(pid), here if r.status else target)
        self.end(running, pid)

    def test_both_ssids_die_in_one_move(self):
        for source, target in [("migration.restored", "migration.ready"),
                               ("migration.committed", "migration.commit_taken"),
                               ("migration.departed", "migration.commit_taken")]:
            running, pid = self.beat()
            old = {node: self.ssid_of(node) for node in ["n1", "n2"]}
            self.arm("n1", source, "kill")
            self.arm("n2", target, "kill")
            r = self.assert_told(self.start("n3", "ssi-migrate", str(pid), "n2"))
            # One that died first may have kept the other from its point.
            self.lab.settle()
            at = self.assert_one(pid)
            died = [node for node in old if self.ssid_of(node) != old[node]]
            print(f"# {source}, {target}: {died} died, {r.status} {r.err.decode().strip()}, "
                  f"lives on {at}", flush=True)
            self.assertTrue(died)
            self.end(running, pid)

    def test_ssid_of_the_source_dies_while_the_link_is_cut(self):
        for point in ["migration.frozen", "migration.paged", "migration.restored"]:
            running, pid = self.beat()
            old = self.ssid_of("n1")
            tool = self.in_the_middle(pid, point, lambda: (
                self.lab.command("cut", "n1", "n2"), self.lab.kill_ssid("n1")))
            time.sleep(1)
            self.lab.command("heal")
            self.assert_told(tool)
            self.await_successor("n1", old)
            self.assert_one(pid)
            self.end(running, pid)

    # A peer that is none.

    def test_hostile_peers_are_refused_and_logged_and_nobody_else_notices(self):
        running, pid = self.beat()
        peer = r"""
import os, socket, sys, time
kind, n = sys.argv[1], int(sys.argv[2])
sockets = [socket.create_connection(("n1", 7777), 5) for _ in range(n)]
sent = 0
end = time.monotonic() + 4
try:
    for s in sockets:
        if kind == "garbage":
            s.sendall(os.urandom(65536))
        elif kind == "hello":
            s.sendall(b"\x16\x03\x01\xff\xff" + os.urandom(70000))
    while time.monotonic() < end and kind in ("endless", "length"):
        s.sendall((b"\xff\xff\xff\xff" if kind == "length" else bytes(4)) * 16384)
        sent += 65536
    if kind == "nothing":
        time.sleep(4)
    for s in sockets:
        s.settimeout(20)
        while s.recv(4096):
            pass
    print("closed", sent)
except (ConnectionError, TimeoutError) as e:
    print("broken" if isinstance(e, ConnectionError) else "open", sent)
"""
        ssid = self.ssid_of("n1")
        for kind, n in [("garbage", 1), ("hello", 3), ("endless", 1), ("length", 1),
                        ("nothing", 1), ("garbage", 100)]:
            stranger = self.start("n3", "python3", "-c", peer, kind, str(n), user="other")
            r = self.lab.run("n2", "ssi-run", "--node", "n1", "uname", "-n")
            self.assertEqual((r.status, r.text), (0, "n1\n"), kind)
            r = stranger.result(40)
            match = re.match(r"(closed|broken) (\d+)", r.text)
            self.assertTrue(match, (kind, r))
            self.assertLess(int(match[2]), 8 << 20, f"{kind}: it was listened to for long")
        self.assertRegex(self.lab.logs("n1", fresh=True), r"10\.77\.0\.3")
        self.assertLess(self.lab.logs("n1", fresh=True).count("10.77.0.3"), 60)
        # The same ssid, no larger, and the move goes well.
        self.assertEqual(self.ssid_of("n1"), ssid)
        status = self.lab.run("n1", "cat", f"/proc/{ssid}/status").text
        self.assertLess(int(re.search(r"VmRSS:\s+(\d+)", status)[1]), 64 << 10)
        self.assertEqual(self.lab.run("n3", "ssi-migrate", str(pid), "n2").status, 0)
        self.assert_one(pid)
        self.end(running, pid)

    def test_hostile_tools_are_cut_off_and_others_are_served(self):
        running, pid = self.beat()
        tool = r"""
import array, os, socket, sys, time
kind, n = sys.argv[1], int(sys.argv[2])
sockets = []
try:
    for _ in range(n):
        s = socket.socket(socket.AF_UNIX)
        s.connect("/run/ssi/ssid.sock")
        s.settimeout(10)
        sockets.append(s)
        if kind == "garbage":
            s.sendall(b"\x40\0\0\0" + os.urandom(64))
        elif kind == "long":
            s.sendall(b"\xff\xff\xff\xff" + os.urandom(64))
        elif kind == "half":
            s.sendall(b"\0\0\x40\0" + bytes(1 << 16))
        elif kind == "big":
            s.sendall(b"\0\0\x40\0" + bytes((4 << 20) - 1))
        elif kind == "descriptors":
            fds = array.array("i", [0] * 10)
            for _ in range(20):
                s.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    print("there", flush=True)
    end = time.monotonic() + 4
    while kind == "endless" and time.monotonic() < end:
        s.sendall(bytes(65536))
    time.sleep(4 if kind in ("nothing", "half", "descriptors") else 0.1)
    print("let in", len(sockets))
except OSError as e:
    print("broken", len(sockets), e)
"""
        ssid = self.ssid_of("n1")

        def descriptors():
            return int(self.lab.run("n1", "sh", "-c", f"ls /proc/{ssid}/fd | wc -l", user="root").text)

        before = descriptors()
        for kind, n in [("garbage", 200), ("long", 200), ("endless", 1), ("half", 150), ("big", 40),
                        ("descriptors", 20), ("nothing", 3000)]:
            stranger = self.start("n1", "sh", "-c", 'ulimit -n 4096; exec python3 -c "$@"', "sh",
                                  tool, kind, str(n), user="other")
            stranger.expect("^(there|broken)", 60)
            self.assertLess(descriptors(), before + 1500, kind)
            r = self.lab.run("n1", "ssi-migrate", "-n", str(pid), "n2", timeout=20)
            print(f"# {kind}: {descriptors()} descriptors, {r.err.decode().strip()}", flush=True)
            self.assertEqual(r.status, 0, (kind, r))
            r = stranger.result(40)
            self.assertRegex(r.text, r"(let in|broken) \d+", (kind, r))
            print(f"# {r.text.split()}", flush=True)
            until(lambda: descriptors() < before + 20, 20, lambda k=kind: f"{k}: {descriptors()}, {before}")
        self.assertEqual(self.ssid_of("n1"), ssid)
        status = self.lab.run("n1", "cat", f"/proc/{ssid}/status").text
        print("# " + re.search(r"VmHWM:\s+\d+", status)[0])
        self.assertLess(int(re.search(r"VmHWM:\s+(\d+)", status)[1]), 160 << 10)
        self.assertLess(self.lab.logs("n1", fresh=True).count("control:"), 60)
        self.end(running, pid)


lab.main()
