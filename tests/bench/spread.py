"""What it costs to let programs begin on other nodes.

Side by side in one laboratory, whose nodes share this machine's processors: nothing can become
faster here, so what is asked is how little slower it is.  The share of programs that
began elsewhere stands beside it.

usage: spread.py [WORD]...	those whose names contain a WORD
"""
import os
import statistics
import sys
import time

import figures
from figures import tell
from lab import PROGRAMS

PROJECT = "/shared/work/project"
N_FILES = 48
# They take the processors of home, where they stay since /tmp is the node's own, so that there is room
# elsewhere only; and they give way.
BURNERS = (f"for i in $(seq {os.cpu_count() + 1}); do (cd /tmp; exec nice -n 19 {PROGRAMS}/burn 600000 x >/dev/null) & "
           "done; sleep 1; ")
# Some tenths of a second for each: much of it the headers.
SOURCE = """#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <pthread.h>
#define F(n) int f##n##_@(int x) { for (int i = 0; i < x; i++) x += i * n ^ x; return x; }
#define G(n) F(n##0) F(n##1) F(n##2) F(n##3) F(n##4) F(n##5) F(n##6) F(n##7) F(n##8) F(n##9)
#define H(n) G(n##0) G(n##1) G(n##2) G(n##3) G(n##4) G(n##5) G(n##6) G(n##7) G(n##8) G(n##9)
H(1) H(2) H(3)
"""


def make_project(cluster):
    cluster.run("n1", "mkdir", PROJECT, check=True)
    for i in range(N_FILES):
        cluster.run("n1", "sh", "-c", f"cat >{PROJECT}/m{i}.c", input=SOURCE.replace("@", str(i)), check=True)
    cluster.run("n1", "sh", "-c", f"""cd {PROJECT}
printf '#!/bin/sh\\nuname -n >>where\\nexec cc "$@"\\n' >cc; chmod 755 cc
printf 'CC = ./cc\\nCFLAGS = -O1\\nall: $(patsubst %%,m%%.o,$(shell seq 0 {N_FILES - 1}))\\n' >Makefile""",
                check=True)


def build(cluster, jobs, *options):
    """ms, and the share of compilers that ran elsewhere."""
    cluster.run("n1", "sh", "-c", "rm -f *.o where", cwd=PROJECT, check=True)
    began = time.monotonic()
    cluster.run("n1", "ssi-run", *options, "make", "-s", f"-j{jobs}", cwd=PROJECT, check=True, timeout=300)
    took = (time.monotonic() - began) * 1000
    where = cluster.run("n1", "cat", "where", cwd=PROJECT).text.split()
    return took, sum(node != "n1" for node in where) / len(where)


def measure_make(cluster):
    make_project(cluster)
    for jobs, factor in [(2, 1.1), (8, 1.3)]:
        plain, spread = [], []
        for _ in range(3):
            plain.append(build(cluster, jobs))
            spread.append(build(cluster, jobs, "--spread"))
        floor = statistics.median(took for took, _ in plain)
        tell(f"make -j{jobs} --spread", statistics.median(took for took, _ in spread), "ms",
             factor * floor, f"{factor} x {floor:.0f} without; "
             f"{100 * statistics.median(share for _, share in spread):.0f} % elsewhere")


def measure_exec(cluster):
    """Processors at home are taken, by programs that leave them to anybody."""
    trip = figures.round_trip(cluster)
    command = f"{BURNERS} uname -n; exec {PROGRAMS}/spawn 200 true"
    values = {}
    for what, options in [("here", []), ("elsewhere", ["--spread"])]:
        text = cluster.run("n1", "ssi-run", *options, "sh", "-c", command, cwd="/shared/work", check=True,
                           timeout=120).text
        values[what] = int(text.split()[1]) / 1000
        if (text.split()[0] == "n1") != (what == "here"):
            raise AssertionError(f"{what}: programs ran on {text.split()[0]}")
        cluster.kill_all()
    tell("a program elsewhere, p50", values["elsewhere"], "ms", 4 * (values["here"] + trip),
         f"4 x (fork+exec {values['here']:.2f} + a round trip of {trip:.3f})")


def measure_kill(cluster):
    trip = figures.round_trip(cluster)
    took = {}
    for node, options in [("n1", []), ("n2", ["--spread"])]:
        sleeper = cluster.run("n1", "ssi-run", "-b", "--node", node, "sleep", "1000", check=True).text.split()[0]
        text = cluster.run("n1", "ssi-run", *options, f"{PROGRAMS}/signals", "500", sleeper, check=True).text
        took[node] = float(text) / 1000
        cluster.run(node, "ssi-run", "--node", node, "kill", sleeper, check=True)
    tell("kill() of a process elsewhere, p50", took["n2"], "ms", 2 * (took["n1"] + trip),
         f"2 x (here {took['n1']:.4f} + a round trip of {trip:.3f})")


TLS = """
import socket, ssl, sys, time
role, address, n, block = sys.argv[1], sys.argv[2], int(sys.argv[3]) << 20, 65536
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if role == "server" else ssl.PROTOCOL_TLS_CLIENT)
context.minimum_version = ssl.TLSVersion.TLSv1_3
if role == "server":
    context.load_cert_chain("/shared/work/tls.pem")
    listener = socket.create_server((address, 7001))
    print("ready", flush=True)
    peer = context.wrap_socket(listener.accept()[0], server_side=True)
    room = bytearray(block)
    while n > 0:
        n -= peer.recv_into(room)
    peer.send(b"!")
else:
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    peer = context.wrap_socket(socket.create_connection((address, 7001)))
    zeros, began = bytes(block), time.monotonic()
    for _ in range(n // block):
        peer.sendall(zeros)
    peer.recv(1)
    print(time.monotonic() - began)
"""


# A program that writes blocks to one that it starts: seconds until that has read all.
PIPE = """
import os, subprocess, sys, time
n, where, burners = int(sys.argv[1]) << 20, sys.argv[2], sys.argv[3]
busy = subprocess.Popen(["sh", "-c", burners + "echo; wait"], stdout=subprocess.PIPE, start_new_session=True)
busy.stdout.read(1)
theirs, ours = os.pipe()
reader = os.fork()
if reader == 0:
    os.dup2(theirs, 0)
    os.close(theirs)
    os.close(ours)
    time.sleep(0.1) # until nobody else has the end that it reads
    os.execvp("sh", ["sh", "-c", f"uname -n >{where}; exec cat >/dev/null"])
os.close(theirs)
while not (os.path.exists(where) and os.path.getsize(where)):
    time.sleep(0.01)
os.killpg(busy.pid, 9)
zeros, began = bytes(65536), time.monotonic()
for _ in range(n // len(zeros)):
    os.write(ours, zeros)
os.close(ours)
os.waitpid(reader, 0)
print(time.monotonic() - began)
"""


def tls(cluster, megabytes):
    """Seconds for a stream between n1 and n2, whose programs run as those of the pipe do."""
    address = figures.address_of(cluster, "n2")
    cluster.run("n1", "sh", "-c", "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=bench "
                "-keyout /shared/work/tls.pem -out - 2>/dev/null >>/shared/work/tls.pem", check=True)
    command = ["ssi-run", "--node"]
    server = cluster.start("n2", *command, "n2", "python3", "-c", TLS, "server", address, str(megabytes))
    server.expect("ready")
    took = float(cluster.run("n1", *command, "n1", "python3", "-c", TLS, "client", address, str(megabytes),
                             check=True).text)
    server.result()
    return took


def pipe(cluster, megabytes, *options):
    """Seconds, and the node of the reader."""
    where = "/shared/work/where"
    cluster.run("n1", "rm", "-f", where, check=True)
    took = float(cluster.run("n1", "ssi-run", *options, "python3", "-c", PIPE, str(megabytes), where, BURNERS,
                             cwd="/shared/work", check=True).text)
    return took, cluster.run("n1", "cat", where).text.strip()


def measure_pipe(cluster):
    """What a program here writes is read by one elsewhere."""
    mib, took = 512, {"here": [], "elsewhere": [], "tls": []}
    for _ in range(3):
        for what, options in [("here", []), ("elsewhere", ["--spread"])]:
            seconds, where = pipe(cluster, mib, *options)
            if (where == "n1") != (what == "here"):
                raise AssertionError(f"{what}: the reader ran on {where}")
            took[what].append(seconds)
        took["tls"].append(tls(cluster, mib))
    here, elsewhere, floor = (mib / statistics.median(took[what]) for what in took)
    print(f"{'a pipe between nodes':<44} {elsewhere:9.2f} MiB/s at least {0.7 * floor:8.2f}  "
          f"ratio {elsewhere / (0.7 * floor):5.2f}  (0.7 x one TLS stream {floor:.0f}; a pipe here {here:.0f})",
          flush=True)


if __name__ == "__main__":
    sys.exit(figures.run_named([measure_exec, measure_kill, measure_make, measure_pipe]))
