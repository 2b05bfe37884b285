"""What ssi-ps draws of what its ssid answers."""

import json
import os
import subprocess
import unittest

from test_hostile import Server, field, frame, sends
from test_nodes import number
from tools import path, run


def process(pid, ppid, node, command):
    return field(1, number(1, pid) + number(2, ppid) + number(3, 300) + field(4, node) + field(5, b"n1") +
                 field(7, b"S") + field(12, command) + field(13, b"job"))


# In a child's order of arrival; a parent may have the greater PID, or be missing.
FAMILY = [process(131072, 300, b"n2", b"cc -c a.c"), process(300, 1, b"n1", b"make"),
          process(301, 300, b"n1", b"sh -c cc"), process(302, 131072, b"n2", b"as"),
          process(303, 999, b"n3", "ein W\u00f6rtchen".encode()), process(304, 131072, b"n2", b"cc1")]
# What no family is: nodes answer one after the other.
CIRCLE = [process(400, 401, b"n1", b"one"), process(401, 400, b"n2", b"two"), process(402, 402, b"n2", b"self")]


class Tree(unittest.TestCase):
    def ask(self, processes, *options, locale="C.UTF-8"):
        s = Server(sends(frame(field(5, b"".join(processes)))))
        environment = {k: v for k, v in os.environ.items() if k not in ("LANG", "LC_ALL", "LC_CTYPE")}
        r = subprocess.run([path("ssi-ps"), "--socket", s.path, *options], stdin=subprocess.DEVNULL, timeout=30,
                           capture_output=True, env={**environment, "LANG": locale}, check=False)
        s.close()
        self.assertEqual((r.returncode, r.stderr), (0, b""))
        return r.stdout.decode()

    def rows(self, *arguments, **more):
        """PID, node and what stands under COMMAND."""
        lines = self.ask(*arguments, **more).splitlines()
        at = lines[0].index("COMMAND")
        return [(int(line.split()[0]), line.split()[3], line[at:]) for line in lines[1:]]

    def test_children_stand_below_their_parents_on_whichever_node(self):
        self.assertEqual(self.rows(FAMILY, "--tree"), [
            (300, "n1", "make"),
            (301, "n1", "├─sh -c cc"),
            (131072, "n2", "└─cc -c a.c"),
            (302, "n2", "  ├─as"),
            (304, "n2", "  └─cc1"),
            (303, "n3", "ein W\u00f6rtchen")])

    def test_in_ascii_where_there_is_no_more(self):
        self.assertEqual(self.rows(FAMILY, "--tree", locale="C"), [
            (300, "n1", "make"),
            (301, "n1", "|-sh -c cc"),
            (131072, "n2", "`-cc -c a.c"),
            (302, "n2", "  |-as"),
            (304, "n2", "  `-cc1"),
            (303, "n3", r"ein W\xc3\xb6rtchen")])

    def test_what_may_be_old_is_said_to_be(self):
        s = Server(sends(frame(field(5, number(3, 1)))))
        r = run(["ssi-ps", "--socket", s.path])
        s.close()
        self.assertEqual((r.returncode, r.stderr), (0, "ssi-ps: this node has lost touch with the cluster: "
                                                    "what is shown may be old\n"))

    def test_whose_parent_is_not_shown_is_a_root(self):
        self.assertEqual(self.rows(FAMILY, "--tree", "131072", "302", "301"),
                         [(301, "n1", "sh -c cc"), (131072, "n2", "cc -c a.c"), (302, "n2", "└─as")])

    def test_a_circle_is_cut(self):
        self.assertEqual(self.rows(CIRCLE, "--tree"),
                         [(401, "n2", "two"), (400, "n1", "└─one"), (402, "n2", "self")])

    def test_without_it_there_is_a_list(self):
        self.assertEqual(self.rows(FAMILY, "--app", "300"),
                         [(300, "n1", "make"), (301, "n1", "sh -c cc"), (302, "n2", "as"),
                          (303, "n3", "ein W\u00f6rtchen"), (304, "n2", "cc1"), (131072, "n2", "cc -c a.c")])

    def test_programs_get_children_in_their_parents(self):
        def nested(p):
            return p["pid"], p["ppid"], p["node"], [nested(c) for c in p.get("children", [])]
        answer = json.loads(self.ask(FAMILY, "--tree", "--json"))
        self.assertEqual([nested(p) for p in answer["processes"]], [
            (300, 1, "n1", [(301, 300, "n1", []),
                            (131072, 300, "n2", [(302, 131072, "n2", []), (304, 131072, "n2", [])])]),
            (303, 999, "n3", [])])
        flat = json.loads(self.ask(FAMILY, "--json"))["processes"]
        self.assertEqual([(p["pid"], "children" in p) for p in flat],
                         [(pid, False) for pid in (300, 301, 302, 303, 304, 131072)])


if __name__ == "__main__":
    unittest.main()
