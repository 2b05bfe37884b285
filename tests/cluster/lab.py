"""A laboratory for the tests of clusters, and what they all need.

A file of tests builds one laboratory (Tests.setUpClass), whose name nobody else
has; it is taken down when the file ends, in whatever way: a process waits for
the end of ours on a pipe, which the kernel closes.  Results are told as TAP.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAMS = "/shared/programs"
USER = "ssi"
GROUP = 4242  # which the user is in besides his own


class Result:
    """How a command ended: status, out and err (bytes)."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def text(self):
        return self.out.decode()

    def __repr__(self):
        return f"status {self.status}, out {self.out[-600:]!r}, err {self.err[-600:]!r}"


class Running:
    """A command that runs in a node: its output goes to files, its input comes from us."""

    def __init__(self, lab, node, command, user, cwd):
        self.lab, self.node = lab, node
        self.directory = tempfile.mkdtemp(prefix="running.", dir=lab.scratch)
        self.id_file = f"/shared/ids/{os.path.basename(self.directory)}"
        command = [word.replace("@ID@", self.id_file) for word in command]
        # Its own PID in the node, so that it can be signalled there.
        wrapped = ["sh", "-c", f'echo $$ >{self.id_file}.tool; exec "$@"', "sh", *command]
        with self._open("out", "wb") as out, self._open("err", "wb") as err:
            self.process = subprocess.Popen(
                lab.exec_arguments(node, wrapped, user, cwd),
                stdin=subprocess.PIPE, stdout=out, stderr=err)

    def _open(self, name, mode):
        return open(os.path.join(self.directory, name), mode)

    def read(self, name="out"):
        with self._open(name, "rb") as f:
            return f.read()

    def write(self, data):
        self.process.stdin.write(data if isinstance(data, bytes) else data.encode())
        self.process.stdin.flush()

    def close_input(self):
        self.process.stdin.close()

    def expect(self, pattern, timeout=20, start=0):
        """Wait for the pattern in what it prints, from byte start on; the match."""
        found = None

        def look():
            nonlocal found
            found = re.compile(pattern.encode(), re.M).search(self.read(), start)
            if not found and self.process.poll() is not None:
                found = re.compile(pattern.encode(), re.M).search(self.read(), start)
                if not found:
                    raise AssertionError(f"it ended before {pattern!r} came: {self.result()}")
            return found

        until(look, timeout, lambda: f"{pattern!r} did not come: {self.read()[-300:]!r}, "
              f"{self.read('err')[-300:]!r}")
        return found

    def ask(self, line, pattern, timeout=20):
        """Write a line; the match of what is printed from now on."""
        start = len(self.read())
        self.write(line + "\n")
        return self.expect(pattern, timeout, start)

    def signal(self, number):
        """Signal the tool, in its node."""
        pid = self.lab.run(self.node, "cat", f"{self.id_file}.tool", user="root").text.strip()
        return self.lab.run(self.node, "kill", f"-{number}", pid, user="root")

    def app(self, timeout=20):
        """The application's id, of a tool that was started with -o @ID@."""
        return int(until(lambda: self.lab.run(self.node, "cat", self.id_file).text.strip(),
                         timeout, lambda: f"no application's id: {self.read('err')!r}"))

    def result(self, timeout=60):
        if self.process.stdin and not self.process.stdin.closed:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.read()[-300:]!r}, "
                                 f"{self.read('err')[-300:]!r}") from None
        return Result(status, self.read("out"), self.read("err"))

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdin and not self.process.stdin.closed:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass


class KnownBug(unittest.SkipTest):
    """An expected failure, of one assertion and not of what leads to it."""

    MARK = "known bug: "

    def __init__(self, reason):
        super().__init__(self.MARK + reason)


@contextlib.contextmanager
def known_bug(reason):
    """The product does not do what the block asserts yet, for the reason given."""
    try:
        yield
    except AssertionError as e:
        raise KnownBug(reason) from e
    raise AssertionError(f"this works now, take the mark away: {reason}")


def until(condition, timeout=20, why=lambda: "it did not come about"):
    """Wait until condition() is true; its value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"after {timeout} s: {why()}")
        time.sleep(0.05)


class Lab:
    def __init__(self, n, *options):
        """With n nodes; options are those of ssi-lab up."""
        self.name = f"t{os.getpid()}"
        self.nodes = [f"n{k}" for k in range(1, n + 1)]
        self.scratch = tempfile.mkdtemp(prefix="ssi-test.")
        self.running = []
        self.log_marks = {}
        self.guard = subprocess.Popen(
            ["sh", "-c", 'cat >/dev/null; ssi-lab --name "$1" -q down; rm -rf -- "$2"', "sh",
             self.name, self.scratch], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True)
        self.command("up", str(n), *options, timeout=180)
        self.prepare()

    def down(self):
        for running in self.running:
            running.stop()
        self.guard.stdin.close()
        self.guard.wait(60)

    def command(self, *arguments, timeout=30):
        """An ssi-lab command, which must succeed; what it printed."""
        r = subprocess.run(["ssi-lab", "--name", self.name, "-q", *arguments],
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout,
                           check=False)
        if r.returncode:
            raise AssertionError(f"ssi-lab {arguments}: {r.returncode}, {r.stderr.decode()}")
        return r.stdout.decode()

    def prepare(self):
        """The tests' programs, and a second user and group, in all nodes."""
        self.run("n1", "sh", "-c", f"mkdir -p {PROGRAMS} && mkdir -m 1777 /shared/ids /shared/work",
                 user="root", check=True)
        for name in os.listdir(os.environ["SSI_TEST_PROGRAMS"]):
            path = os.path.join(os.environ["SSI_TEST_PROGRAMS"], name)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                with open(path, "rb") as f:
                    self.run("n1", "sh", "-c", 'cat >"$1" && chmod 755 "$1"', "sh",
                             f"{PROGRAMS}/{name}", user="root", input=f.read(), check=True)
        for node in self.nodes:
            self.prepare_node(node)
        self.uid = int(self.run("n1", "id", "-u").text)

    def prepare_node(self, node):
        self.run(node, "sh", "-c", f"echo testers:x:{GROUP}:{USER} >>/etc/group; "
                 "echo other:x:4343:4343::/tmp:/bin/sh >>/etc/passwd; "
                 "echo other:x:4343: >>/etc/group", user="root", check=True)

    def exec_arguments(self, node, command, user, cwd):
        return ["ssi-lab", "--name", self.name, "exec", node, "--user", user, "--cwd", cwd, "--",
                *command]

    def run(self, node, *command, user=USER, cwd="/", input=b"", timeout=60, check=False):
        """Run a command in a node to its end."""
        if isinstance(input, str):
            input = input.encode()
        try:
            r = subprocess.run(self.exec_arguments(node, command, user, cwd), input=input,
                               capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as e:
            raise AssertionError(f"{node}: {command} does not end in {timeout} s: "
                                 f"{(e.stderr or b'')[-300:]!r}") from None
        result = Result(r.returncode, r.stdout, r.stderr)
        if check and result.status:
            raise AssertionError(f"{node}: {command}: {result}")
        return result

    def start(self, node, *command, user=USER, cwd="/"):
        """Start a command in a node; @ID@ in it is a file for ssi-run -o."""
        running = Running(self, node, command, user, cwd)
        self.running.append(running)
        return running

    def space(self, node, *command, user="root"):
        """Run a command in the space of a node."""
        return self.run(node, "ssi-run", *command, user=user, check=True).text

    def processes(self, node="n1"):
        """What ssi-ps knows, by PID."""
        text = self.run(node, "ssi-ps", "--json", check=True).text
        return {int(p["pid"]): p for p in json.loads(text)["processes"]}

    def where(self, pid, node="n1"):
        return self.processes(node).get(pid, {}).get("node")

    def status_of(self, node, pid):
        """/proc/PID/status there, as a dictionary."""
        text = self.space(node, "cat", f"/proc/{pid}/status")
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    def copies(self, program):
        """Where processes of this program are, by their executables: [(node, PID in the node)]."""
        script = f'find /proc -maxdepth 2 -name exe -lname "{PROGRAMS}/$1" 2>/dev/null'
        found = []
        for node in self.nodes:
            text = self.run(node, "sh", "-c", script, "sh", program, user="root").text
            found += [(node, int(line.split("/")[2])) for line in text.split()]
        return found

    def kill_ssid(self, node):
        """kill -9; the number of the one that was killed."""
        return self.run(node, "sh", "-c", "cat /run/ssi/ssid.pid && kill -9 $(cat /run/ssi/ssid.pid)",
                        user="root", check=True).text.strip()

    def kill_all(self):
        """End what a test left running."""
        by_node = {}
        for pid, p in self.processes(self.nodes[0]).items():
            by_node.setdefault(p["node"], []).append(str(pid))
        for node, pids in by_node.items():
            self.run(node, "ssi-run", "kill", "-9", *pids, user="root")
        # Copies that nobody knows of, as well.
        for name in ["beat", "count", "family", "forks", "holder", "journey", "stamp", "watcher"]:
            for node, pid in self.copies(name):
                self.run(node, "kill", "-9", str(pid), user="root")

    def _limit_group(self, node, controller):
        """The cgroup v1 of our own for the node's ssid and space; None: there is no such controller."""
        parent = f"/sys/fs/cgroup/{controller}"
        if not os.path.exists(f"{parent}/cgroup.procs"):
            return None
        group = f"{parent}/ssi-lab.{self.name}.{node}"
        os.makedirs(group, exist_ok=True)
        return group

    def group(self, node):
        """The node's cgroup v2, all of it."""
        for top in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]:
            base = f"{top}/ssi-lab.{self.name}/{node}"
            if os.path.isdir(base):
                break
        return base

    def _processes_of(self, node):
        """PIDs here of the node's ssid and space; not of what keeps the node up."""
        base = self.group(node)
        pids = []
        for part in ["ssid", "ssi.space"]:
            for directory, _, files in os.walk(f"{base}/{part}"):
                if "cgroup.procs" in files:
                    with open(f"{directory}/cgroup.procs", encoding="ascii") as f:
                        pids += f.read().split()
        return pids

    @staticmethod
    def _put(pids, group):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                with open(f"{group}/cgroup.procs", "w", encoding="ascii") as f:
                    f.write(pid)

    @contextlib.contextmanager
    def limited(self, node, controller, value):
        """The node's ssid and space within value: bytes more of memory, or tasks more."""
        group = self._limit_group(node, controller)
        if not group:
            raise unittest.SkipTest(f"no cgroup v1 {controller} controller to limit a node with")
        name, used = {"memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
                      "pids": ("pids.max", "pids.current")}[controller]
        try:
            self._put(self._processes_of(node), group)
            with open(f"{group}/{used}", encoding="ascii") as f:
                value += int(f.read())
            with open(f"{group}/{name}", "w", encoding="ascii") as f:
                f.write(str(value))
            yield
        finally:
            def empty():
                with open(f"{group}/cgroup.procs", encoding="ascii") as f:
                    pids = f.read().split()
                self._put(pids, os.path.dirname(group))
                return not pids
            until(empty)
            os.rmdir(group)

    def settle(self, timeout=30):
        """Wait until all nodes are up and in touch again."""
        for node in self.nodes:
            until(lambda n=node: self.run(n, "ssi-nodes", "--wait", str(len(self.nodes)),
                                          "--timeout", "20").status == 0,
                  timeout, lambda n=node: f"{n} is not in touch with all")

    def mend(self):
        """Take back what a test that failed has left: cuts, pauses, nodes that are off, stopped ssids."""
        self.command("heal")
        for node in json.loads(self.command("list", "--json"))["nodes"]:
            if node["state"] == "paused":
                self.command("resume", node["name"])
            elif node["state"] == "off":
                self.command("start", node["name"])
                self.prepare_node(node["name"])
            self.run(node["name"], "sh", "-c", "kill -CONT $(cat /run/ssi/ssid.pid)", user="root", check=True)

    def logs(self, node, fresh=False):
        text = self.command("logs", node)
        return text[self.log_marks.get(node, 0):] if fresh else text

    def mark_logs(self):
        for node in self.nodes:
            self.log_marks[node] = len(self.logs(node))


class Tests(unittest.TestCase):
    """Base of a file's tests: self.lab, with three nodes."""

    N_NODES = 3

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab(cls.N_NODES)

    @classmethod
    def tearDownClass(cls):
        cls.lab.down()

    def setUp(self):
        self.lab.mark_logs()
        self.first_running = len(self.lab.running)

    def tearDown(self):
        for running in self.lab.running[self.first_running:]:
            running.stop()
        # A test that failed may have left a node without its ssid.
        self.lab.settle()
        self.lab.kill_all()

    def start(self, node, *command, **more):
        return self.lab.start(node, *command, **more)

    def assert_result(self, r, status, err=None):
        """The status, and a pattern that the one line of errors matches."""
        self.assertEqual(r.status, status, r)
        if err is not None:
            self.assertRegex(r.err.decode(), err)
            self.assertEqual(r.err.count(b"\n"), 1, r)


class TapResult(unittest.TestResult):
    """One line a test, when it is over: it may fail in several places, tearDown's included."""

    def __init__(self):
        super().__init__()
        self.began = 0
        self.ok, self.note = True, ""

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()
        self.ok, self.note = True, ""

    def stopTest(self, test):
        super().stopTest(test)
        name = test.id().rsplit(".", 1)[-1].removeprefix("test_").replace("_", " ")
        print(f"{'ok' if self.ok else 'not ok'} {self.testsRun} - {name}{self.note}", flush=True)
        print(f"# {time.monotonic() - self.began:.1f} s", flush=True)

    def _fail(self, test, err):
        """Explained on stderr, which meson shows of a test that failed."""
        self.ok, self.note = False, ""
        print(self._exc_info_to_string(err, test), file=sys.stderr, flush=True)
        if not isinstance(test, Tests):
            return
        for node in test.lab.nodes:
            try:
                lines = test.lab.logs(node, fresh=True).splitlines()[-25:]
            except (AssertionError, subprocess.SubprocessError) as e:
                lines = [f"no log: {e}"]
            for line in lines:
                print(f"{node}: {line}", file=sys.stderr, flush=True)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._fail(test, err)

    def addError(self, test, err):
        super().addError(test, err)
        if not isinstance(test, Tests):
            print("Bail out! the laboratory was not built", flush=True)
        self._fail(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self._fail(test, err)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if not self.ok:
            return
        known = reason.startswith(KnownBug.MARK)
        self.ok = not known
        self.note = f" # TODO {reason.removeprefix(KnownBug.MARK)}" if known else f" # SKIP {reason}"


def lacking():
    """What this machine lacks for these tests, or nothing."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ["ssi-lab", "ssi-run", "ssid"]:
        if not shutil.which(tool, path="/usr/local/sbin:/usr/local/bin"):
            return f"{tool} is not installed: run setup/build"
    if not os.path.isdir(os.environ.get("SSI_TEST_PROGRAMS", "")):
        return "SSI_TEST_PROGRAMS does not name the directory of the tests' programs"
    if subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"],
                      stderr=subprocess.DEVNULL, check=False).returncode:
        return "may not make namespaces"
    return None


def main():
    """Run the tests of __main__, or those whose names contain a word given."""
    reason = lacking()
    if reason:
        print(f"1..0 # SKIP {reason}")
        sys.exit(0)
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:" + os.environ["PATH"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Whoever started us with nohup, or in the background, would have our tools ignore it as well.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    loader = unittest.TestLoader()
    if len(sys.argv) > 1:
        loader.testNamePatterns = [f"*{word}*" for word in sys.argv[1:]]
    suite = loader.loadTestsFromModule(sys.modules["__main__"])
    print(f"1..{suite.countTestCases()}", flush=True)
    result = TapResult()
    suite.run(result)
    sys.exit(0 if result.wasSuccessful() else 1)
