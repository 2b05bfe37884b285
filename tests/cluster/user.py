"""Somebody at a terminal, for tests."""
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time

import lab
from lab import Result, until


def talker(lines, words):
    """A program that writes numbered lines, one in 3 ms, and reads numbered words; then it tells how many,
    and the lines of the window, and ends with 3."""
    return f"""
import os, threading, time, tty
tty.setraw(0)
os.write(1, b"ready")
def write():
    for i in range({lines}):
        os.write(1, b"out%d\\r\\n" % i)
        time.sleep(0.003)
t = threading.Thread(target=write)
t.start()
n, data = 0, b""
while n < {words}:
    data += os.read(0, 65536)
    while len(data) >= 7:
        assert data[:7] == b"in%05d" % n, (n, data[:20])
        n, data = n + 1, data[7:]
t.join()
os.write(1, b"in %d %d\\r\\n" % (n, os.get_terminal_size().lines))
os.system("stty sane")
os._exit(3)
"""


# Shows the window whenever it is told of another size.
WATCHER = """
import os, signal
def show(*_):
    print(*os.get_terminal_size()[::-1], flush=True)
signal.signal(signal.SIGWINCH, show)
show()
while True:
    signal.pause()
"""


class User:
    """Somebody at a terminal, who has started a command in a node."""

    def __init__(self, the_lab, node, *command, rows=24, columns=80, user=lab.USER):
        self.lab, self.node = the_lab, node
        self.out = b""
        self.id_file = f"/shared/ids/user.{os.getpid()}.{time.monotonic_ns()}"
        command = [word.replace("@ID@", self.id_file) for word in command]
        wrapped = ["sh", "-c", f'echo $$ >{self.id_file}.tool; exec "$@"', "sh", *command]
        # @slave stays open: what the terminal is like is asked after the end.
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.before = self.modes()
        self.process = subprocess.Popen(
            the_lab.exec_arguments(node, wrapped, user, "/"), stdin=self.slave, stdout=self.slave,
            stderr=self.slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self):
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            self.out += data

    def modes(self):
        modes = termios.tcgetattr(self.slave)
        return modes[:6] + [modes[6]]

    def is_raw(self):
        return not self.modes()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys):
        os.write(self.master, keys.encode())

    def expect(self, pattern, timeout=20, start=0):
        compiled = re.compile(pattern.encode(), re.M)
        return until(lambda: compiled.search(self.out, start), timeout,
                     lambda: f"{pattern!r} did not come: {self.out[-500:]!r}")

    def ask(self, keys, pattern, timeout=20):
        """Type; the match of what is shown from now on."""
        start = len(self.out)
        self.type(keys)
        return self.expect(pattern, timeout, start)

    def tool(self):
        return until(lambda: self.lab.run(self.node, "cat", f"{self.id_file}.tool").text.strip())

    def app(self):
        return int(until(lambda: self.lab.run(self.node, "cat", self.id_file).text.strip()))

    def signal(self, name):
        self.lab.run(self.node, "kill", f"-{name}", self.tool(), user="root", check=True)

    def result(self, timeout=30):
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.out[-500:]!r}") from None
        # Behind everything that was shown.
        os.write(self.slave, b"<end>")
        self.expect("<end>$")
        return Result(status, self.out.removesuffix(b"<end>"), b"")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.slave)
        os.close(self.master)
