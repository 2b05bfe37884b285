"""What ssi-nodes shows of what its ssid answers."""

import json
import unittest

from test_hostile import Server, field, frame, sends
from tools import run


def number(n, value):
    """A varint field of protobuf."""
    out = bytes([n << 3])
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def node(k, state, *load):
    """A Node; @load: cpus, running, memory_total, memory_available."""
    return field(3, number(1, k) + field(2, b"n%d" % k) + field(3, b"10.0.0.%d:7777" % k) +
                 field(4, state) + b"".join(number(6 + i, v) for i, v in enumerate(load)))


NODES = field(6, number(1, 5) + number(2, 1) + node(1, b"up", 4, 150, 8 << 30, 1 << 30) +
              node(2, b"up") + node(3, b"lost", 2, 700, 4 << 30, 1 << 30))


class Nodes(unittest.TestCase):
    def ask(self, *options):
        s = Server(sends(frame(NODES)))
        r = run(["ssi-nodes", "--socket", s.path, *options])
        s.close()
        self.assertEqual(r.returncode, 0)
        self.assertRegex(r.stderr, r"\Assi-nodes: n3 has been lost: .*; start it, .*\n\Z")
        return r.stdout

    def test_what_was_not_heard_is_no_zero(self):
        rows = [line.split()[4:] for line in self.ask().splitlines()[1:]]
        self.assertEqual(rows, [["4", "1.50", "8.0G", "1.0G"], ["-"] * 4, ["2", "-", "4.0G", "-"]])

    def test_nor_is_it_for_programs(self):
        nodes = json.loads(self.ask("--json"))["nodes"]
        self.assertEqual([[n[k] for k in ("cpus", "load", "memory", "free")] for n in nodes],
                         [[4, 1.5, 8 << 30, 1 << 30], [None] * 4, [2, None, 4 << 30, None]])

    def test_problems_are_for_programs_as_well(self):
        answer = json.loads(self.ask("--json"))
        self.assertEqual([p["node"] for p in answer["problems"]], ["n3"])
        self.assertTrue(answer["problems"][0]["remedy"].startswith("start it"))
        self.assertIsNone(answer["nodes"][0]["since"])

    def test_what_never_was_is_no_date(self):
        s = Server(sends(frame(NODES)))
        r = run(["ssi-nodes", "--history", "--json", "--socket", s.path])
        s.close()
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        node = json.loads(r.stdout)["nodes"][2]
        self.assertEqual((node["lost"], node["losses"]), (None, 0))


if __name__ == "__main__":
    unittest.main()
