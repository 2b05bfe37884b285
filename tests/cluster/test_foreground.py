"""A shell at a terminal whose programs begin on other nodes: nobody at it can tell."""
import re
import time

import lab
from lab import PROGRAMS, until
from user import WATCHER, User, talker

# Without line editors of their own, whose prompts are more than a prompt.
SHELLS = [("bash", "--norc", "-i"), ("dash", "-i"), ("zsh", "-f", "-i", "+Z", "+o", "PROMPT_SP")]


class Foreground(lab.Tests):
    def shell(self, name="bash", options=("--norc", "-i")):
        """A shell on n1, where no processor is free."""
        user = User(self.lab, "n1", "env", "TERM=dumb", "PS1=+ ", "ENV=", "ssi-run", "-o", "@ID@",
                    "--spread", name, *options)
        self.addCleanup(user.stop)
        user.expect(r"\+ $")
        user.ask("cd /shared/work\r", r"\+ $")
        for i in range(2):
            user.ask(f"{PROGRAMS}/burn 300000 x$((0+{i})) >/dev/null &\r", r"\+ $")
            until(lambda i=i: self.place(f"burn 300000 x{i}") == "n1")
        # A job counts as such when it has been seen to run.
        until(lambda: user.ask("cat /proc/sys/kernel/hostname\r", r"^(n\d)\r\n\+ $")[1] != b"n1")
        return user

    def leave(self, user):
        user.type("kill %1 %2; wait; exit 9\r")
        self.assertEqual(user.result().status, 9)
        self.nothing_is_left()

    def nothing_is_left(self):
        until(lambda: not self.lab.processes(), 30, lambda: str(self.lab.processes()))
        for node in self.lab.nodes:
            until(lambda n=node: not self.relays(n), 30, lambda n=node: self.relays(n))
            until(lambda n=node: self.lab.run(n, "ssi-run", "--no-tty", "ls", "/dev/pts").text ==
                  "ptmx\n", 10, lambda n=node: self.lab.run(n, "ssi-run", "ls", "/dev/pts").text)

    def relays(self, node):
        return self.lab.run(node, "pgrep", "-x", "ssi-tty", user="root").text.split()

    def place(self, command):
        return next((p["node"] for p in self.lab.processes().values() if command in p["command"]),
                    None)

    def away(self, command):
        node = until(lambda: self.place(command))
        self.assertNotEqual(node, "n1", command)
        return node

    def test_job_control_reaches_programs_elsewhere(self):
        for name, *options in SHELLS:
            user = self.shell(name, options)
            user.ask("cat\r", "cat\r\n")
            self.away("cat")
            user.ask("hello\r", "^hello\r\nhello\r$")
            user.ask("\x04", r"\+ $")
            user.ask("cat\r", "cat\r\n")
            self.away("cat")
            user.ask("\x1a", r"(?i)(stopped|suspended) +cat")
            user.ask("jobs\r", r"(?i)\[3\] *\+ +(stopped|suspended) +cat")
            user.ask("fg\r", r"cat\r\n")
            user.ask("again\r", "^again\r\nagain\r$")
            user.ask("\x03", r"\+ $")
            user.ask("echo s=$?\r", "^s=130\r$")
            # Who wants to read in the background is stopped, and reads in the foreground.
            user.ask("cat & sleep 1; jobs\r", r"(?i)(stopped|suspended).*cat")
            user.ask("fg\r", r"cat\r\n")
            user.ask("at last\r", "^at last\r\nat last\r$")
            user.ask("\x1c", r"\+ $")
            user.ask("echo s=$?\r", "^s=131\r$")
            self.leave(user)

    def test_what_is_shown_comes_before_the_prompt(self):
        user = self.shell()
        for i in range(20):
            shown = user.ask(f"seq {i} 400 | tail -n 100; echo s=$?\r", r"^s=0\r\n\+ $")
            lines = user.out[:shown.end()].split(b"echo s=$?\r\n")[-1].split(b"\r\n")
            self.assertEqual([int(line) for line in lines[:-2]], list(range(301, 401)))
        self.leave(user)

    def test_modes_and_window_are_one(self):
        user = self.shell()
        user.ask("stty -echo; stty -a | grep -o -- '.echo '; stty echo\r", r"^-echo \r$")
        self.assertEqual(user.ask("stty size\r", r"^(\d+ \d+)\r$")[1], b"24 80")
        user.ask(f"python3 -c '{WATCHER}'\r", "^24 80\r$")
        self.away("python3")
        for rows, columns in [(50, 132), (10, 20), (60, 200)]:
            start = len(user.out)
            user.resize(rows, columns)
            user.expect(f"^{rows} {columns}\r$", start=start)
        user.ask("\x03", r"\+ $")
        # A password: read without an echo, and the modes put back.
        script = "import getpass; print(getpass.getpass()[::-1])"
        user.ask(f"python3 -c '{script}'\r", "Password: $")
        self.away("getpass")
        shown = user.ask("drowssap\r", r"\+ $")
        self.assertIn(b"password\r\n", user.out[:shown.end()])
        self.assertNotIn(b"drowssap", user.out)
        self.leave(user)

    def test_input_that_nobody_read_is_the_shell_s(self):
        user = self.shell()
        user.ask("sleep 3\r", "sleep 3\r\n")
        self.away("sleep 3")
        user.ask("echo typed $((40+2)) ahead\r", "^typed 42 ahead\r$")
        user.ask("head -n 1; echo s=$?\r", r"\r\n")
        self.away("head -n 1")
        user.ask("first\recho $((50+5))\r", "^55\r$")
        self.leave(user)

    def test_ssid_ends_and_nobody_at_the_terminal_notices(self):
        user = self.shell()
        user.ask(f"python3 -c '{talker(2000, 500)}'\r", "^ready")
        node = self.away("python3")
        for i in range(500):
            user.type(f"in{i:05d}")
            if i in (100, 200, 300):
                for n in {100: ["n1"], 200: [node], 300: ["n1", node]}[i]:
                    self.lab.kill_ssid(n)
            time.sleep(0.002)
        self.assertNotIn(b"out1999", user.out)
        user.expect("^in 500 24\r$", 60)
        self.assertEqual([int(n) for n in re.findall(rb"out(\d+)", user.out)], list(range(2000)))
        user.ask("echo s=$?\r", "^s=3\r$")
        self.lab.settle()
        self.leave(user)

    def test_a_lost_node_or_relay_gives_the_prompt_back(self):
        user = self.shell()
        user.ask("cat\r", "cat\r\n")
        node = self.away("cat")
        # The mirror is hung up: to read it fails.
        start = len(user.out)
        self.lab.run(node, "sh", "-c", "kill -9 $(pgrep -x ssi-tty)", user="root", check=True)
        user.expect(r"\+ $", start=start)
        user.ask("echo s=$?\r", "^s=1\r$")
        # The next program has a new one.
        user.ask("cat\r", "cat\r\n")
        node = self.away("cat")
        user.ask("hello\r", "^hello\r\nhello\r$")
        start = len(user.out)
        self.lab.command("kill", node)
        user.expect(r"Killed.*\r\n\+ $", 30, start=start)
        user.ask("echo s=$?\r", "^s=137\r$")
        self.lab.command("start", node)
        self.lab.prepare_node(node)
        self.lab.settle()
        self.leave(user)

    def test_who_hangs_up_ends_what_runs_elsewhere(self):
        for how in ["KILL", "HUP"]:
            user = self.shell()
            user.ask("sleep 600\r", "sleep 600\r\n")
            self.away("sleep 600")
            user.signal(how)
            user.result()
            self.lab.run("n1", "ssi-run", "pkill", "-x", "burn")
            self.nothing_is_left()


lab.main()
