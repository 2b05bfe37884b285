"""Whatever answers at the socket, a tool ends in time, with one line and a code."""

import concurrent.futures
import os
import random
import re
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

from tools import ASKING, PATIENCE_S, PATIENT, path

TIMEOUT_S = 2
SLACK_S = 20  # on a machine that is busy with others


def frame(payload):
    return struct.pack("<I", len(payload)) + payload


def field(number, payload):
    """A length-delimited field of protobuf."""
    n, length = len(payload), b""
    while n > 127:
        length += bytes([n & 127 | 128])
        n >>= 7
    return bytes([number << 3 | 2]) + length + bytes([n]) + payload


def failure(status, text):
    return frame(field(1, bytes([8, status]) + field(2, text)))


PROGRESS = frame(field(2, field(1, b"freeze")))


def closes(s):
    pass


def resets(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def is_silent(s):
    while s.recv(65536):  # until the tool has gone
        pass


def sends(data, then=is_silent):
    def serve(s):
        s.sendall(data)
        then(s)
    return serve


def streams(data):
    def serve(s):
        while True:
            s.sendall(data)
    return serve


def drips(s):
    while True:
        s.sendall(PROGRESS[:1])
        time.sleep(0.2)


RANDOM = random.Random(1).randbytes(65536)

# Name -> what it does with a connection, exit codes that are right.
SERVERS = {
    "closes at once": (closes, {8}),
    "resets": (resets, {8}),
    "says nothing": (is_silent, {7}),
    "sends half a length": (sends(b"\0\0"), {7}),
    "sends half a message and closes": (sends(b"\x10\0\0\0abc", closes), {8}),
    "sends half a message and waits": (sends(b"\x10\0\0\0abc"), {7}),
    "announces 4 GiB": (sends(b"\xff\xff\xff\xff"), {1}),
    # All of it has come, or has not in time.
    "announces 4 MiB and streams nonsense": (sends(b"\0\0\x40\0", streams(b"\xff" * 65536)), {1, 7}),
    "sends random bytes": (sends(RANDOM), {1, 7}),
    "streams random bytes": (streams(RANDOM), {1, 7}),
    "streams empty events": (streams(b"\0" * 4096), {1, 7}),
    "streams progress": (streams(PROGRESS * 100), {7}),
    "drips": (drips, {1, 7}),
    "fails with lines and escapes": (sends(failure(1, b"a\nb\033[2J\rc")), {1}),
    "fails with half a character": (sends(failure(1, b"\xc3(")), {1}),
    "fails with an empty event": (sends(frame(field(1, b""))), {1}),
    "fails with success": (sends(failure(0, b"fine")), {1}),
    "fails with a code of no tool": (sends(failure(99, b"odd")), {1}),
    "answers something else": (sends(frame(field(12, b""))), None),
}


class Server:
    def __init__(self, serve):
        self.directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.directory.name, "ssid.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.serve = serve
        threading.Thread(target=self.loop, daemon=True).start()

    def loop(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.one, args=[s], daemon=True).start()

    def one(self, s):
        with s:
            try:
                self.serve(s)
            except OSError:
                pass

    def close(self):
        self.listener.close()
        self.directory.cleanup()


def ask(command, server):
    """What is wrong with how @command ends at @server; None: nothing."""
    serve, codes = SERVERS[server]
    limit = TIMEOUT_S + SLACK_S + (PATIENCE_S if command in PATIENT else 0)
    s = Server(serve)
    try:
        r = subprocess.run(
            [path(command[0]), "--timeout", str(TIMEOUT_S), "--socket", s.path, *command[1:]],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"does not end in {limit} s"
    finally:
        s.close()
    text = r.stderr.decode(errors="replace")
    # A tool that was told "done" may believe it; all others say what is wrong.
    if codes is None and r.returncode == 0:
        return None
    if r.returncode not in (codes or {1, 7, 8}):
        return f"exit code {r.returncode}, {text!r}"
    if len(text.splitlines()) != 1 or not text.startswith(command[0] + ": "):
        return f"not one line: {text!r}"
    if re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text):
        return f"control characters: {text!r}"
    return None


def ask_doctor(config, server):
    """What is wrong with how the doctor tells of @server; None: nothing."""
    s = Server(SERVERS[server][0])
    try:
        r = subprocess.run(
            [path("ssi"), "doctor", "--socket", s.path, "--config", config],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    finally:
        s.close()
    text = r.stdout.decode(errors="replace")
    if r.returncode != 5 or "\033" in text or not re.search(r"(?m)^ssid +warn ", text):
        return f"exit code {r.returncode}, {text!r}"
    return None


class Hostile(unittest.TestCase):
    def check(self, faults):
        """@faults: pairs of who was asked of what, and a future of what is wrong."""
        for who, fault in faults:
            with self.subTest(who):
                self.assertIsNone(fault.result())

    def test_tools_end_in_time_with_a_line_and_a_code(self):
        # Nearly all of it is waiting, longest for the patient: so side by side.
        with concurrent.futures.ThreadPoolExecutor(len(PATIENT) * len(SERVERS)) as patient, \
                concurrent.futures.ThreadPoolExecutor(16) as others:
            self.check([(f"{' '.join(c)}: {s}", (patient if c in PATIENT else others).submit(ask, c, s))
                        for s in SERVERS for c in ASKING])

    def test_the_doctor_calls_it_a_warning(self):
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as config, \
                concurrent.futures.ThreadPoolExecutor(16) as pool:
            config.write("[paths]\ncriu = /nonexistent/criu\n")  # which costs no time
            config.flush()
            self.check([(s, pool.submit(ask_doctor, config.name, s)) for s in SERVERS])


if __name__ == "__main__":
    unittest.main()
