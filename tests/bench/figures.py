"""What a cluster costs, beside what the same work costs without one.

Everything is measured in one laboratory and in turns with its floor, all of it at
real-time priority where that is allowed: what else the machine does would meet a run of
ten processes that wait for each other harder than one that is alone.  Medians, except for
what is asked of the whole.

usage: figures.py [WORD]...	those whose names contain a WORD
"""
import os
import re
import statistics
import sys
import time

import lab
from lab import PROGRAMS, until

# CRIU as it is without us (setup/setup --tests builds it), and with our patches.
BARE = "/usr/local/lib/ssi/criu-plain/sbin/criu"
PATCHED = "/usr/local/lib/ssi/criu/sbin/criu"
IMAGES = "/tmp/bare"
FILE = "/shared/work/ticker"


def tell(what, value, unit, asked, floor):
    """A figure, what it may be at most, and what that is made of."""
    print(f"{what:<44} {value:9.2f} {unit:<5} at most {asked:9.2f}  ratio {value / asked:5.2f}  "
          f"({floor})", flush=True)


def median_of(cluster, n, *commands):
    """The medians of commands that take turns on n1, in ms."""
    words = [word for command in commands for word in ["--", *command]][1:]
    text = cluster.run("n1", f"{PROGRAMS}/spawn", str(n), *words, check=True, timeout=300).text
    return [int(line) / 1000 for line in text.split()]


def address_of(cluster, node):
    text = cluster.run(node, "sh", "-c", "hostname -I 2>/dev/null || ip -4 -o addr show eth0",
                       check=True).text
    return re.search(r"10\.\d+\.\d+\.\d+", text)[0]


def round_trip(cluster):
    """Between n1 and n2, in ms."""
    address = address_of(cluster, "n2")
    server = cluster.start("n2", f"{PROGRAMS}/trip", address, "7000")
    client = until(lambda: (r := cluster.run("n1", f"{PROGRAMS}/trip", address, "7000", "2000"))
                   and r.status == 0 and r)
    server.result()
    return float(client.text) / 1000


def measure_run(cluster):
    trip = round_trip(cluster)
    for what, options in [("ssi-run true here", ["--node", "n1"]),
                          ("ssi-run true on another node", ["--node", "n2"])]:
        bare, ours = median_of(cluster, 100, ["true"], ["ssi-run", *options, "true"])
        tell(what, ours, "ms", bare + 2 * trip + 3,
             f"fork+exec {bare:.2f} + 2 round trips of {trip:.3f} + 3")


def gap(cluster):
    return int(cluster.run("n1", "cat", FILE).text.split()[1]) / 1000


def started(cluster, before):
    """The ticker's PID, when it ticks."""
    text = cluster.run("n1", "cat", FILE).text.split()
    return int(text[0]) if len(text) == 2 and text[0] != before and text[1] != "0" else 0


def start(cluster, mib, *command):
    before = (cluster.run("n1", "cat", FILE).text.split() or [""])[0]
    cluster.run("n1", *command, f"{PROGRAMS}/ticker", str(mib), FILE, user="root", check=True)
    return until(lambda: started(cluster, before), 60)


def timed(cluster, node, *command):
    text = cluster.run(node, f"{PROGRAMS}/spawn", "1", *command, user="root", check=True,
                       timeout=120).text
    return int(text) / 1000


def bare_move(cluster, mib, criu):
    """criu dump and criu restore through tmpfs: ms in all, ms that the program stood still."""
    pid = start(cluster, mib, "setsid", "-f")
    cluster.run("n1", "sh", "-c", f"rm -rf {IMAGES}; mkdir {IMAGES}", user="root", check=True)
    took = timed(cluster, "n1", "sh", "-c",
                 f"{criu} dump -t {pid} -D {IMAGES} -o dump.log 2>{IMAGES}/err && "
                 f"{criu} restore -d -D {IMAGES} -o restore.log 2>{IMAGES}/err")
    time.sleep(0.2)
    still = gap(cluster)
    cluster.run("n1", "kill", "-9", str(pid), user="root", check=True)
    return took, still


def our_move(cluster, mib):
    pid = start(cluster, mib, "ssi-run", "--node", "n1", "-b")
    took = timed(cluster, "n1", "ssi-migrate", "-q", str(pid), "n2")
    time.sleep(0.2)
    still = gap(cluster)
    cluster.run("n1", "ssi-run", "--node", "n1", "kill", "-9", str(pid), user="root", check=True)
    return took, still


def moves(cluster, mib, n):
    """Medians of what moves cost: ours, bare criu, our patched criu; each (ms in all, ms still)."""
    kinds = [lambda: our_move(cluster, mib), lambda: bare_move(cluster, mib, BARE),
             lambda: bare_move(cluster, mib, PATCHED)]
    results = [[] for _ in kinds]
    for _ in range(n):
        for kind, result in zip(kinds, results):
            result.append(kind())
    return [[statistics.median(column) for column in zip(*result)] for result in results]


def measure_downtime(cluster):
    ours, bare, patched = moves(cluster, 1, 11)
    tell("1 MiB moved: still by its own clock", ours[1], "ms", 1.3 * bare[1],
         f"1.3 x bare criu {bare[1]:.1f}; with our patches alone {patched[1]:.1f}")


def measure_move(cluster):
    ours, bare, patched = moves(cluster, 256, 5)
    tell("256 MiB moved", ours[0], "ms", bare[0],
         f"bare criu {bare[0]:.0f}; with our patches alone {patched[0]:.0f}")


# Of a node's own processes: switches so far, resident KiB.
PROCESSES = """
for pid in $(pgrep -x 'ssid|ssi-init'); do
    cat /proc/$pid/task/*/status | awk '/ctxt_switches/ { s += $2 } END { print "switches", s }'
    awk '/^VmRSS/ { print "resident", $2 }' /proc/$pid/status
done
awk '/eth0:/ { print "bytes", $2 + $10 }' /proc/net/dev
"""


def state(cluster, node):
    total = {}
    for line in cluster.run(node, "sh", "-c", PROCESSES, user="root", check=True).text.splitlines():
        name, number = line.split()
        total[name] = total.get(name, 0) + int(number)
    return total


def measure_idle(cluster):
    seconds = 10
    before = [state(cluster, node) for node in cluster.nodes]
    time.sleep(seconds)
    after = [state(cluster, node) for node in cluster.nodes]
    for node, a, b in zip(cluster.nodes, before, after):
        print(f"{'idle ' + node:<44} {(b['switches'] - a['switches']) / seconds:9.1f} context "
              f"switches/s, {(b['bytes'] - a['bytes']) / seconds:.0f} bytes/s on eth0", flush=True)
        tell(f"idle {node}: ssid and ssi-init", b["resident"] / 1024, "MiB", 24, "resident")


def be_preferred():
    """Us, and so the laboratory that we start and everything in it."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError as error:
        print(f"measured beside what else the machine does: {error}", flush=True)


def run_with(n_nodes, measure, reason=None):
    """measure(laboratory); an exit status."""
    reason = lab.lacking() or reason
    if reason:
        print(f"skipped: {reason}")
        return 77
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:" + os.environ["PATH"]
    cluster = lab.Lab(n_nodes)
    try:
        cluster.settle()
        measure(cluster)
    finally:
        cluster.down()
    return 0


def run_named(measures, reason=None):
    """Those whose names contain one of our arguments, or all; preferred to what else runs."""
    def measure(cluster):
        for each in measures:
            if not sys.argv[1:] or any(word in each.__name__ for word in sys.argv[1:]):
                each(cluster)

    be_preferred()
    return run_with(3, measure, reason)


# Memory last: what the moves leave behind is in it.
MEASURES = [measure_run, measure_downtime, measure_move, measure_idle]

if __name__ == "__main__":
    sys.exit(run_named(MEASURES, None if os.access(BARE, os.X_OK) else
                       f"no {BARE}: run setup/setup --tests"))
