#!/usr/bin/env python3
"""Count the results that `meson test` wrote to its testlog.json.

Prints "PASSED FAILED SKIPPED", then the name of each failed test on a line of its own;
and, on standard error, why each skipped test was.
"""
import json
import sys

PASSED = {"OK", "EXPECTEDFAIL"}


def reason(test):
    """The last thing that a skipped test said."""
    text = (test.get("stdout", "") + "\n" + test.get("stderr", "")).strip()
    return text.splitlines()[-1] if text else "it did not say why"


def main():
    passed = skipped = 0
    failed = []
    try:
        with open(sys.argv[1], encoding="utf-8") as log:
            tests = [json.loads(line) for line in log]
    except FileNotFoundError:
        tests = []
    for test in tests:
        # "project:suite / name"
        name = test["name"].split(" / ", 1)[-1]
        if test["result"] in PASSED:
            passed += 1
        elif test["result"] == "SKIP":
            skipped += 1
            print(f"-- skipped: {name}: {reason(test)}", file=sys.stderr)
        else:
            failed.append(name)
    print(passed, len(failed), skipped, *failed, sep="\n")


if __name__ == "__main__":
    main()
