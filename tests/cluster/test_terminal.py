"""A program that ssi-run gives a terminal is as one at the user's own."""
import os
import re
import signal
import threading
import time

import lab
from lab import Result, until
from user import WATCHER, User, talker

SOMEWHERE = [[], ["--node", "n2"]]

class Terminal(lab.Tests):
    def sit(self, *command, node="n1", **more):
        user = User(self.lab, node, *command, **more)
        self.addCleanup(user.stop)
        return user

    def shell(self, where, *options, **more):
        user = self.sit("env", "TERM=dumb", "PS1=+ ", "ssi-run", *options, *where,
                        "bash", "--norc", "-i", **more)
        user.expect(r"^\+ $")
        return user

    def gone(self, pid):
        until(lambda: pid not in self.lab.processes(), 20, lambda: f"{pid} does not end")

    def test_the_terminal_is_one_of_the_space(self):
        for where in SOMEWHERE:
            user = self.shell(where, rows=31, columns=97)
            name = user.ask("tty\r", r"^(/dev/pts/\d+)\r$")[1].decode()
            user.ask("stty size\r", r"^31 97\r$")
            user.ask(f"stat -c '%t %U %a' {name}\r", rf"^88 {lab.USER} 620\r$")
            user.ask("test -t 0 -a -t 1 -a -t 2 && echo yes >/dev/tty\r", r"^yes\r$")
            user.ask("ps -o tty=,sid= -p $$; echo $$\r", r"^pts/\d+ +(\d+)\r\n\1\r$")
            user.ask("python3 -c 'import os; print(os.ttyname(os.openpty()[1]))'\r",
                     r"^/dev/pts/\d+\r$")
            user.type("exit 7\r")
            self.assertEqual(user.result().status, 7)

    def test_job_control_works(self):
        for where in SOMEWHERE:
            user = self.shell(where)
            user.ask("sleep 100\r", r"^sleep 100\r$|sleep 100\r\n")
            user.ask("\x1a", r"Stopped +sleep 100\r")
            user.ask("jobs\r", r"^\[1\]\+ +Stopped +sleep 100\r$")
            user.ask("fg\r", r"^sleep 100\r$")
            user.ask("\x03", r"^\+ $")
            user.ask("echo =$?\r", "^=130\r$")
            user.ask("cat\r", "cat\r\n")
            user.ask("\x04", r"\+ $")
            user.ask("sleep 100\r", "sleep 100\r\n")
            user.ask("\x1c", r"Quit.*\r\n\+ $")
            user.ask("echo =$?\r", "^=131\r$")
            # A program in the background that wants to read is stopped.
            user.ask("cat & wait\r", r"Stopped +cat\r")
            user.ask("kill %1; wait; echo ok\r", "^ok\r$")
            user.type("exit\r")
            self.assertEqual(user.result().status, 0)

    def test_a_key_ends_the_program_and_not_the_tool(self):
        for where in SOMEWHERE:
            for key, status in [("\x03", 130), ("\x1c", 131)]:
                user = self.sit("ssi-run", *where, "sh", "-c", "ulimit -c 0; echo ready; exec sleep 60")
                user.expect("^ready\r$")
                user.type(key)
                self.assertEqual(user.result().status, status)
                self.assertEqual(user.modes(), user.before)

    def test_the_window_follows(self):
        for where in SOMEWHERE:
            user = self.sit("ssi-run", *where, "python3", "-c", WATCHER)
            user.expect("^24 80\r$")
            for rows, columns in [(50, 132), (10, 20), (60, 200)]:
                start = len(user.out)
                user.resize(rows, columns)
                user.expect(f"^{rows} {columns}\r$", start=start)
            user.type("\x03")
            user.result()

    def test_the_terminal_is_raw_and_given_back(self):
        for where in SOMEWHERE:
            user = self.shell(where)
            self.assertTrue(user.is_raw())
            user.type("exit\r")
            self.assertEqual(user.result().status, 0)
            self.assertEqual(user.modes(), user.before)
            for name, status in [("TERM", -15), ("HUP", -1), ("INT", -2)]:
                user = self.shell(where)
                user.signal(name)
                self.assertEqual(user.result().status, status)
                self.assertEqual(user.modes(), user.before)
            user = self.sit("ssi-run", *where, "no-such-program")
            r = user.result()
            self.assertEqual((r.status, user.modes()), (127, user.before))
            self.assertEqual(r.out.count(b"\r\n"), 1, r)

    def test_a_tool_that_is_stopped_gives_the_terminal_back_meanwhile(self):
        user = self.shell([])
        user.signal("TSTP")
        until(lambda: user.modes() == user.before)
        user.resize(20, 70)
        user.signal("CONT")
        os.killpg(user.process.pid, signal.SIGCONT)  # and what leads into the node
        until(user.is_raw)
        user.ask("stty size\r", "^20 70\r$")
        user.type("exit\r")
        self.assertEqual(user.result().status, 0)

    def test_the_session_is_hung_up_when_the_tool_goes_away(self):
        for where in SOMEWHERE:
            for name in ["KILL", "TERM", "HUP"]:
                path = f"/shared/work/hup.{time.monotonic_ns()}"
                user = self.sit("ssi-run", "-o", "@ID@", *where, "bash", "--norc", "-c",
                                f"trap 'echo hup >{path}; exit' HUP; echo ready; "
                                "while :; do sleep 0.05; done")
                user.expect("^ready\r$")
                pid = user.app()
                user.signal(name)
                user.result()
                until(lambda p=path: self.lab.run("n1", "cat", p).text == "hup\n")
                self.gone(pid)
        # Nobody keeps a terminal that is nobody's.
        for node in ["n1", "n2"]:
            until(lambda n=node: self.lab.run(n, "ssi-run", "--no-tty", "ls", "/dev/pts").text ==
                  "ptmx\n", 10, lambda n=node: self.lab.run(n, "ssi-run", "ls", "/dev/pts").text)

    def test_ctrl_right_bracket_three_times_lets_go(self):
        user = self.sit("ssi-run", "-o", "@ID@", "--node", "n2", "sh", "-c",
                        "stty raw; echo ready; exec sleep 600")
        user.expect("^ready")
        pid = user.app()
        user.type("\x1d")
        time.sleep(1.2)
        user.type("\x1d\x1d")
        time.sleep(0.3)
        self.assertIsNone(user.process.poll())
        user.type("\x1d")
        r = user.result()
        self.assertEqual((r.status, user.modes()), (1, user.before))
        self.assertIn(f"application {pid}", r.text)
        self.gone(pid)

    def test_the_last_output_comes_before_the_end(self):
        for where in SOMEWHERE:
            user = self.sit("ssi-run", *where, "sh", "-c", "sleep 300 & seq 1 60000; exit 5")
            r = user.result()
            self.assertEqual(r.status, 5)
            self.assertEqual(r.text.split(), [str(i) for i in range(1, 60001)])

    def test_a_restart_of_ssid_is_not_noticed(self):
        for where in SOMEWHERE:
            user = self.sit("ssi-run", *where, "python3", "-c", talker(4000, 1000))
            user.expect("ready")
            for i in range(1000):
                user.type(f"in{i:05d}")
                if i in (200, 400, 600, 800):
                    for node in ["n1", "n2"] if i != 400 else ["n2"]:
                        self.lab.kill_ssid(node)
                    user.resize(30 + i // 100, 80)
                time.sleep(0.002)
            # Much of it was written while an ssid was away.
            self.assertNotIn(b"out3999", user.out)
            r = user.result(60)
            self.assertEqual(r.status, 3, r)
            numbers = re.findall(rb"out(\d+)", r.out)
            self.assertEqual([int(n) for n in numbers], list(range(4000)))
            self.assertIn(b"in 1000 38\r\n", r.out)
            self.assertEqual(user.modes(), user.before)
            self.lab.settle()

    def test_the_window_is_told_when_ssid_is_back(self):
        user = self.shell(["--node", "n2"])
        self.lab.kill_ssid("n1")
        user.resize(44, 111)
        until(lambda: user.ask("stty size\r", r"^(\d+ \d+)\r$")[1] == b"44 111")
        user.type("exit\r")
        self.assertEqual(user.result().status, 0)

    def test_what_is_no_terminal_stays_what_it_is(self):
        for where in SOMEWHERE:
            w = " ".join(where)
            # Errors have a way of their own; input from or output to elsewhere: no terminal.
            script = f"""
                ssi-run {w} sh -c 'test -t 0 && test -t 1 && ! test -t 2; echo a $?; echo err >&2' \\
                        2>/shared/work/errors
                ssi-run {w} sh -c 'test -t 1; echo b $?' </dev/null
                ssi-run {w} sh -c 'test -t 0; echo c $?' | cat
                ssi-run --no-tty {w} sh -c 'test -t 0 || test -t 1 || test -t 2; echo d $?'
                ssi-run --tty {w} sh -c 'test -t 0 && test -t 1 && test -t 2; echo e $?' </dev/null |
                        tr -d '\\r'
                cat /shared/work/errors; echo done"""
            user = self.sit("sh", "-c", script)
            user.expect("^done\r$")
            self.assertEqual(user.result().text.split("\r\n"),
                             ["a 0", "b 1", "c 1", "d 1", "e 0", "err", "done", ""])
        r = self.lab.run("n1", "ssi-run", "--bg", "--tty", "true")
        self.assert_result(Result(r.status, r.out, r.err.split(b"\n")[0] + b"\n"), 2, "background")

    def test_a_job_in_the_background_gets_none(self):
        for where in SOMEWHERE:
            user = self.sit("bash", "--norc", "-c", f"set -m; ssi-run {' '.join(where)} "
                            "sh -c 'test -t 0 || test -t 1; echo bg $?' & wait; echo done")
            user.expect("^bg 1\r$")
            user.expect("^done\r$")
            user.result()

    def test_a_program_may_let_go_of_its_terminal(self):
        for where in SOMEWHERE:
            user = self.sit("ssi-run", *where, "bash", "--norc", "-c",
                            "echo one; exec <&- >&- 2>&-; sleep 1; echo two >/dev/tty; exit 4")
            r = user.result()
            self.assertEqual((r.status, r.out), (4, b"one\r\ntwo\r\n"))

    def test_a_terminal_without_a_user_is_typed_the_end(self):
        for where in SOMEWHERE:
            for text in ["", "one\ntwo\n", "one\ntwo"]:
                r = self.lab.run("n1", "ssi-run", "--tty", *where, "sh", "-c",
                                 "stty -echo; echo ready; cat; echo end", input=text)
                # What was typed before the echo was off is shown as well.
                shown = r.text.replace("\r\n", "\n").replace("^D\b\b", "")
                self.assertTrue(shown.endswith(f"ready\n{text}end\n"), r)
                self.assertEqual(r.status, 0)

    def test_a_move_is_refused_by_name(self):
        user = self.shell([], "-o", "@ID@")
        r = self.lab.run("n1", "ssi-migrate", str(user.app()), "n2")
        self.assertEqual(r.status, 5, r)
        self.assertIn(b"terminal /dev/pts/", r.err)
        user.ask("echo goes on\r", "^goes on\r$")
        user.type("exit\r")
        self.assertEqual(user.result().status, 0)

    def test_zz_a_lost_node_ends_the_tool(self):
        user = self.shell(["--node", "n3"])
        self.lab.command("kill", "n3")
        r = user.result(30)
        self.assertNotEqual(r.status, 0)
        self.assertEqual(user.modes(), user.before)
        self.lab.command("start", "n3")
        self.lab.settle()


signal.signal(signal.SIGTTOU, signal.SIG_IGN)
lab.main()
