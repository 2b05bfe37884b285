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
    n = os.cpu_count()
    burners = f"for i in $(seq {n}); do chrt --idle 0 {PROGRAMS}/burn 600000 >/dev/null & done; sleep 1; "
    command = f"{burners} exec {PROGRAMS}/spawn 200 true"
    values = {}
    for what, options in [("here", []), ("elsewhere", ["--spread"])]:
        text = cluster.run("n1", "ssi-run", *options, "sh", "-c", command, check=True, timeout=120).text
        values[what] = int(text.split()[0]) / 1000
        cluster.kill_all()
    tell("a program elsewhere, p50", values["elsewhere"], "ms", 4 * (values["here"] + trip),
         f"4 x (fork+exec {values['here']:.2f} + a round trip of {trip:.3f})")


if __name__ == "__main__":
    sys.exit(figures.run_named([measure_exec, measure_make]))
