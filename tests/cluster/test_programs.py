"""Programs as they come, of several languages and kinds: spread, moved and revived while they work."""
import os
import random
import subprocess

import lab
from beats import Beats
from lab import PROGRAMS, until

# How much goes through the pipeline at least: 1024 take some minutes.
PIPELINE_MIB = int(os.environ.get("SSI_TEST_PIPELINE_MIB", "96"))
BURN = f"{PROGRAMS}/burn"
WORK = "/shared/work"
# So that there is room elsewhere only; $p are their PIDs.
BUSY = f"for i in 1 2 3 4; do {BURN} 600000 x >/dev/null & p=\"$p $!\"; done; sleep 1;"

# All that processes of a pool share, and the programs that they start.
POOL = f"""
import multiprocessing, os, subprocess, sys

def add(lock, value, queue):
    for _ in range(100):
        with lock:
            value.value += 1
    queue.put(os.getpid())

def start(k):
    return subprocess.check_output(["{BURN}", "100", str(k)], stdin=subprocess.DEVNULL, text=True)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    lock, value, queue = context.Lock(), context.Value("i", 0), context.Queue()
    ones = [context.Process(target=add, args=(lock, value, queue)) for _ in range(4)]
    for one in ones:
        one.start()
    told = sorted(queue.get(timeout=60) for _ in ones)
    for one in ones:
        one.join()
    print(value.value, told == sorted(one.pid for one in ones), [one.exitcode for one in ones])
    with context.Pool(8) as pool:
        print("".join(pool.imap_unordered(start, range(16))), end="")
"""

# A pool that works in steps.
STEPS = """
import hashlib, multiprocessing, os, sys, threading

def work(k):
    h = b"%d" % k
    for _ in range(3000):
        h = hashlib.sha256(h).digest()
    return h.hex()

if __name__ == "__main__":
    n, ended = int(sys.argv[2]) if len(sys.argv) > 2 else 0, threading.Event()
    threading.Thread(target=lambda: (os.read(0, 1), ended.set()), daemon=True).start()
    with multiprocessing.get_context(sys.argv[1]).Pool(4) as pool:
        step = 0
        while step < n if n else not ended.is_set():
            step += 1
            print("step", step, *pool.map(work, range(8 * step, 8 * step + 8), chunksize=1), flush=True)
"""

# Children that are waited for, a pipe, and jobs that are killed.
SHELL = f"""
for i in 1 2 3 4 5 6 7 8; do ({BURN} 200 $i >>where; exit $i) & p="$p $!"; done
for q in $p; do wait $q; echo job $?; done
p=
seq 100000 | sed s/7/seven/ | sha256sum
for i in 1 2 3 4 5 6; do {BURN} 60000 $i & p="$p $!"; done
sleep 1
jobs | wc -l
trap 'echo got it' USR1
kill -USR1 $$
for q in $p; do kill $q; wait $q; echo killed $?; done
wait
"""


class Programs(Beats):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        path = os.path.join(os.environ["SSI_TEST_PROGRAMS"], "Work.class")
        if os.path.exists(path):
            with open(path, "rb") as f:
                cls.lab.run("n1", "sh", "-c", f"cat >{PROGRAMS}/Work.class", user="root", input=f.read(), check=True)

    def need(self, *paths):
        for path in paths:
            if self.lab.run("n1", "sh", "-c", f"command -v {path} || test -e {path}").status:
                self.skipTest(f"there is no {path}: run setup/setup --tests, then setup/build")

    def spread(self, *command, **more):
        return self.lab.run("n1", "ssi-run", "--spread", *command, cwd=WORK, timeout=120, **more)

    def work(self, *command):
        """Start a program that prints its steps until its input ends; (running, pid)."""
        running = self.start("n1", "ssi-run", "-o", "@ID@", *command, cwd=WORK)
        pid = running.app()
        self.works_on(running)
        return running, pid

    def works_on(self, running):
        running.expect(r"^step \d+ .*\n(.*\n){3}", timeout=60, start=len(running.read()))

    def check_steps(self, text, *command):
        """What it printed is what it prints when it is left alone."""
        lines = text.decode().splitlines()
        self.assertGreater(len(lines), 10)
        alone = self.lab.run("n1", *command, str(len(lines)), cwd=WORK, check=True).text.splitlines()
        self.assertEqual(lines, alone)

    def move_along(self, running, pid):
        for target in ["n2", "n3", "n1", "n3"]:
            self.assertEqual(self.lab.run("n2", "ssi-migrate", str(pid), target).status, 0)
            self.works_on(running)
            self.assertEqual(self.lab.where(pid), target)

    def revive(self, running, pid):
        """Save and kill it, and go on on another node; what it had printed, and the new one."""
        self.lab.run("n2", "ssi-checkpoint", "--kill", str(pid), check=True)
        r = running.result(20)
        self.assertEqual(r.status, 137, r)
        again = self.start("n1", "ssi-restart", "--on", "n2", str(pid))
        self.works_on(again)
        return r.out, again

    def check_moves(self, *command):
        running, pid = self.work(*command)
        self.move_along(running, pid)
        before, again = self.revive(running, pid)
        again.close_input()
        r = again.result(30)
        self.assertEqual(r.status, 0, r)
        self.check_steps(before + r.out, *command)
        self.nothing_is_left()

    def check_refused(self, pid, pattern):
        """To move and to save, in one line, at once."""
        for options in [[], ["--dry-run"]]:
            self.assert_result(self.lab.run("n2", "ssi-migrate", *options, str(pid), "n2"), 5,
                               rf"^ssi-migrate: process {pid} cannot move: {pattern}")
        self.assert_result(self.lab.run("n2", "ssi-checkpoint", str(pid)), 5, rf"^ssi-checkpoint: .*{pattern}")
        self.assertEqual(self.lab.where(pid), "n1")

    # -- Moved and revived while they work --

    def test_an_openmp_program_moves_and_is_revived_while_it_works(self):
        self.need(f"{PROGRAMS}/openmp")
        self.check_moves(f"{PROGRAMS}/openmp")

    def test_a_go_program_moves_and_is_revived_while_it_works(self):
        self.need(f"{PROGRAMS}/gopher")
        self.check_moves(f"{PROGRAMS}/gopher")

    def test_a_go_program_that_is_away_is_signalled(self):
        self.need(f"{PROGRAMS}/gopher")
        running, pid = self.work(f"{PROGRAMS}/gopher")
        for node in ["n2", "n3"]:
            self.assertEqual(self.lab.run("n2", "ssi-migrate", str(pid), node).status, 0)
            told = len(running.read("err"))
            self.lab.run("n1", "ssi-run", "kill", "-USR1", str(pid), check=True)
            until(lambda t=told: running.read("err")[t:] == b"got user defined signal 1\n")
        running.close_input()
        self.assertEqual(running.result(20).status, 0)

    def test_a_jvm_moves_and_is_revived_while_it_works(self):
        self.need("java", f"{PROGRAMS}/Work.class")
        self.check_moves("java", "-Xmx128m", "-XX:-UsePerfData", "-cp", PROGRAMS, "Work")

    def pool(self, method):
        """The command of one."""
        self.lab.run("n1", "sh", "-c", "cat >steps.py", cwd=WORK, input=STEPS, check=True)
        return ["python3", "steps.py", method]

    def test_a_pool_of_python_moves_and_is_revived_while_it_works(self):
        self.check_moves(*self.pool("fork"))

    def check_moves_with_children(self, per_number, *command):
        """It reads numbers, and starts programs for each, which come and go while it moves."""
        running = self.start("n1", "ssi-run", "-o", "@ID@", *command, cwd=WORK)
        pid, last = running.app(), 0
        for target in ["n2", "n3", "n1", "n2"]:
            said = len(running.read())
            running.write("".join(f"{k}\n" for k in range(last + 1, last + 13)))
            last += 12
            running.expect(r"^-?\d+ n\d$", start=said)

            def moved(to=target):
                # One that has ended, and was not waited for yet, is in the way for a moment.
                r = self.lab.run("n3", "ssi-migrate", str(pid), to)
                if r.status:
                    self.assert_result(r, 5, "has ended, and its parent did not wait")
                return r.status == 0
            until(moved, 60)
        running.close_input()
        r = running.result(60)
        self.assertEqual((r.status, r.err), (0, b""), r)
        said, where = self.where(r.text)
        self.assertEqual(said, sorted(form.format(k) for k in range(1, last + 1) for form in per_number))
        self.assertIn("n2", where)
        self.nothing_is_left()

    def test_xargs_moves_with_its_jobs(self):
        self.check_moves_with_children(["{}"], "xargs", "-P", "4", "-n", "1", "sh", "-c", f"{BURN} 60 $0")

    def test_a_static_shell_moves_with_its_jobs(self):
        self.need("/bin/busybox")
        self.check_moves_with_children(["{}", "-{}"], "/bin/busybox", "sh", "-c",
                                       f"while read x; do {BURN} 60 $x | cat & {BURN} 60 -$x; wait; done")

    # -- Refused --

    def check_works_on(self, running, *command):
        """To its end, and prints what @command prints alone."""
        self.works_on(running)
        running.close_input()
        r = running.result(30)
        self.assertEqual(r.status, 0, r)
        self.check_steps(r.out, *command)

    def test_a_pool_of_python_that_names_its_semaphores_is_refused_by_name(self):
        command = self.pool("spawn")
        running, pid = self.work(*command)
        self.check_refused(pid, rf"mapping of {pid} \(python3\): /dev/shm/sem\.\w+ was deleted, but has another name")
        self.check_works_on(running, *command)

    def test_a_jvm_with_its_file_of_figures_is_refused_by_name(self):
        self.need("java", f"{PROGRAMS}/Work.class")
        running, pid = self.work("java", "-Xmx128m", "-cp", PROGRAMS, "Work")
        self.check_refused(pid, rf"mapping of {pid} \(java\): file lock on /tmp/hsperfdata_ssi/{pid}")
        self.check_works_on(running, "java", "-cp", PROGRAMS, "Work")

    def test_mpirun_is_refused_by_name_for_its_connections(self):
        self.need("mpirun", f"{PROGRAMS}/ring")
        command = ["mpirun", "--oversubscribe", "-np", "4", f"{PROGRAMS}/ring"]
        running, pid = self.work(*command)
        self.check_refused(pid, rf"fd \d+ of {pid} \(mpirun\): internet socket tcp 127\.0\.0\.1:\d+, listening")
        self.check_works_on(running, *command)

    def check_redis(self, options, client, pattern):
        """A server and its client are one application, which counts."""
        self.need("redis-cli", "/usr/bin/redis-check-rdb")
        # Which it is when it is called so.
        self.lab.run("n1", "sh", "-c", "mkdir -p bin && ln -sf /usr/bin/redis-check-rdb bin/redis-server", cwd=WORK,
                     check=True)
        running = self.start("n1", "ssi-run", "-o", "@ID@", "sh", "-c", f"""
bin/redis-server --save '' --logfile redis.log {options} &
until redis-cli {client} ping; do sleep 0.1; done
redis-cli {client}
redis-cli {client} shutdown nosave
wait""", cwd=WORK)
        running.expect("^PONG$")
        for k in [1, 2]:
            running.ask("incr n", f"^{k}$")
        self.check_refused(running.app(), rf"fd \d+ of \d+ \(redis-server\): {pattern}")
        for k in [3, 4]:
            running.ask("incr n", f"^{k}$")
        running.close_input()
        self.assertEqual(running.result(20).status, 0)
        self.nothing_is_left()

    def test_redis_is_refused_by_name_for_its_port(self):
        self.check_redis("--bind 127.0.0.1 --port 6379", "-p 6379", r"internet socket tcp 127\.0\.0\.1:6379, listening")

    def test_redis_is_refused_by_name_for_the_path_of_its_socket(self):
        self.check_redis(f"--port 0 --unixsocket {WORK}/redis.sock", f"-s {WORK}/redis.sock",
                         f"unix socket bound to {WORK}/redis.sock")

    # -- Spread --

    def where(self, text):
        """What was said by children, without where they were; and that."""
        lines = [line.rsplit(" ", 1) for line in text.splitlines()]
        return sorted(line[0] for line in lines), [line[1] for line in lines]

    def assert_spread(self, where):
        self.assertEqual(set(where), {"n1", "n2", "n3"}, where)
        self.nothing_is_left()

    def test_children_of_a_go_program_begin_where_there_is_room(self):
        self.need(f"{PROGRAMS}/gopher")
        r = self.spread(f"{PROGRAMS}/gopher", "start", "24", BURN, "150", "x")
        self.assertEqual((r.status, r.err), (0, b""), r)
        lines = r.text.splitlines()
        self.assertEqual(lines.pop(), "signal: terminated")
        said, where = self.where("\n".join(line.removesuffix(" <nil>") for line in lines))
        self.assertEqual(said, ["x"] * 24)
        self.assert_spread(where)

    def test_xargs_tells_how_its_jobs_ended(self):
        # Of the last two it says so and starts no more: they are its last jobs.
        for last, status in [("test $0 != 17", 123), ("test $0 != 24 || kill $$", 125),
                             ("test $0 != 24 || exit 255", 124)]:
            command = ["sh", "-c", f"seq 24 | xargs -P 6 -n 1 sh -c '{BURN} 40 $0; {last}'"]
            plain = self.lab.run("n1", *command, cwd=WORK)
            r = self.spread(*command)
            self.assertEqual((r.status, r.err), (plain.status, plain.err), r)
            self.assertEqual(r.status, status, r)
            said, where = self.where(r.text)
            self.assertEqual(said, self.where(plain.text)[0])
            self.assertEqual(len(said), 24)
            self.assert_spread(where)

    def test_a_pool_of_python_works_and_starts_programs_everywhere(self):
        for method in ["fork", "spawn", "forkserver"]:
            self.lab.run("n1", "sh", "-c", "cat >pool.py", cwd=WORK, input=POOL, check=True)
            r = self.spread("python3", "pool.py", method)
            self.assertEqual((r.status, r.err), (0, b""), r)
            first, rest = r.text.split("\n", 1)
            self.assertEqual(first, "400 True [0, 0, 0, 0]")
            said, where = self.where(rest)
            self.assertEqual(said, sorted(str(k) for k in range(16)))
            self.assert_spread(where)

    def test_a_static_shell_uses_all_nodes_and_does_not_notice(self):
        self.need("/bin/busybox")
        self.assertNotIn("INTERP", subprocess.check_output(["readelf", "-l", "/bin/busybox"], text=True))
        plain = self.lab.run("n1", "/bin/busybox", "sh", "-c", SHELL, cwd=WORK)
        self.lab.run("n1", "rm", "where", cwd=WORK, check=True)
        self.assertIn("killed 143", plain.text)
        r = self.spread("/bin/busybox", "sh", "-c", SHELL)
        self.assertEqual((r.status, r.text), (plain.status, plain.text), (r, plain))
        said, where = self.where(self.lab.run("n1", "cat", "where", cwd=WORK).text)
        self.lab.run("n1", "rm", "where", cwd=WORK, check=True)
        self.assertEqual(said, [str(k) for k in range(1, 9)])
        self.assert_spread(where)

    def test_mpirun_works_under_spread(self):
        self.need("mpirun", f"{PROGRAMS}/ring")
        # More ranks than processors: what they hold keeps them with their daemon.
        command = ["mpirun", "--oversubscribe", "-np", "6", f"{PROGRAMS}/ring"]
        r = self.spread(*command, "30")
        self.assertEqual((r.status, r.err), (0, b""), r)
        self.check_steps(r.out, *command)
        self.nothing_is_left()

    # -- A pipeline --

    # Why a stage may stay, for now.
    STAYS = (r"session \d+ of process \d+ exists there already, and only a process born in it can enter it|"
             r"pipe to \d+ \(.*\), which stays")

    def move_at_random(self, stages, seed):
        """Some moves, one of them home and one between nodes that are not."""
        choose, moved = random.Random(seed), []
        for _ in range(60):
            pid, target = choose.choice(stages), choose.choice(self.lab.nodes)
            source = self.lab.where(pid)
            r = self.lab.run("n2", "ssi-migrate", str(pid), target)
            if r.status:
                self.assert_result(r, 5, rf"^ssi-migrate: process {pid} cannot move.*({self.STAYS})")
                # Early, so a dry run knows it too.
                dry = self.lab.run("n2", "ssi-migrate", "--dry-run", str(pid), target)
                self.assertEqual((dry.status, dry.err), (r.status, r.err))
            elif source != target:
                moved.append((source, target))
            if len(moved) >= 8 and {"n2", "n3"} in map(set, moved) and "n1" in [to for _, to in moved]:
                return
        raise AssertionError(f"seed {seed}: {moved}")

    def test_stages_of_a_pipeline_move_at_random(self):
        seed = random.randrange(1 << 32)
        # Those of the shell's own session can only move home, others to any node.
        stages = "cat | setsid cat | " * 4
        # So many bytes, and on until it is told.
        numbers = "seq 1000000 2048575"  # 8 MiB
        source = (f"{{ n=0; until [ -e stop ] && [ $n -ge {PIPELINE_MIB // 8} ]; do {numbers}; n=$((n + 1)); done; "
                  "echo $n >sent; rm stop; }")
        running = self.start("n1", "ssi-run", "--spread", "-o", "@ID@", "bash", "-c",
                             f"{BUSY} set -o pipefail; {source} | {stages} sha256sum; "
                             "echo status $?; kill $p", cwd=WORK)
        app = running.app()

        def cats():
            found = [pid for pid, p in self.lab.processes().items()
                     if p["command"] == "cat" and int(p["ppid"]) == app]
            return found if len(found) == 8 else None
        self.move_at_random(until(cats, 60), seed)
        self.lab.run("n1", "touch", "stop", cwd=WORK, check=True)
        r = running.result(580)
        n = int(self.lab.run("n1", "cat", "sent", cwd=WORK).text)
        alone = subprocess.check_output(
            ["sh", "-c", f"for n in $(seq {n}); do {numbers}; done | sha256sum"], text=True)
        self.assertEqual((r.status, r.text), (0, f"{alone}status 0\n"), f"seed {seed}: {r}")
        self.nothing_is_left()


lab.main()
