"""How long a cluster of five real nodes takes until all know that one is lost.

A member and the leader are killed in turn, as a whole: pid 1 and all others at the same
moment.  The time is from just before that until the view without it is committed and
known on each of the others, as /run/ssi/view of each says.

usage: loss.py [ROUNDS]
"""
import json
import os
import statistics
import sys
import threading
import time

from figures import run_with
from lab import until

N_NODES = 5
ASKED = 3.0


def nodes(cluster, at):
    text = cluster.run(at, "ssi-nodes", "--json", check=True).text
    return json.loads(text)["nodes"]


def leader(cluster, at):
    return next((n["node"] for n in nodes(cluster, at) if (n["role"] or "").startswith("leader")),
                None)


def all_vote(cluster, at):
    return {(n["role"] or "").split(",")[0] for n in nodes(cluster, at)} == {"leader", "voter"}


def number(link):
    """The node's own."""
    return int(os.readlink(link).split()[2])


def who_is_up(link):
    """A bit for each node that is up; the first digit has nodes 1 to 4."""
    return int(os.readlink(link).split()[-1][::-1], 16)


def link_of(cluster, node):
    with open(f"/run/ssi-lab/{cluster.name}/{node}/pid", encoding="ascii") as f:
        return f"/proc/{f.read().strip()}/root/run/ssi/view"


def lose(cluster, victim):
    """Kill it; seconds until all others have a view without it."""
    links = [link_of(cluster, n) for n in cluster.nodes if n != victim]
    bit = 1 << (number(link_of(cluster, victim)) - 1)
    killer = threading.Thread(target=cluster.command, args=("kill", victim))
    began = time.monotonic()
    killer.start()
    while any(who_is_up(link) & bit for link in links):
        if time.monotonic() - began > 30:
            raise AssertionError(f"{victim} is not lost")
        time.sleep(0.005)
    took = time.monotonic() - began
    killer.join()
    return took


def come_back(cluster, victim):
    cluster.command("start", victim)
    cluster.prepare_node(victim)
    cluster.settle()
    until(lambda: all_vote(cluster, victim), 60, lambda: "not all are voters")


def measure(cluster, rounds):
    took = {"a member": [], "the leader": []}
    until(lambda: all_vote(cluster, "n1"), 60, lambda: "not all are voters")
    for _ in range(rounds):
        for kind, times in took.items():
            leads = until(lambda: leader(cluster, "n1"))
            victim = leads if kind == "the leader" else next(
                n for n in reversed(cluster.nodes) if n != leads)
            times.append(lose(cluster, victim))
            come_back(cluster, victim)
    for kind, times in took.items():
        print(f"{kind} of {N_NODES} killed, until all know: {min(times):.2f} to {max(times):.2f} s, "
              f"median {statistics.median(times):.2f}, at most {ASKED:.1f}; {rounds} times",
              flush=True)


if __name__ == "__main__":
    sys.exit(run_with(N_NODES, lambda cluster: measure(cluster, int(sys.argv[1]) if sys.argv[1:] else 5)))
