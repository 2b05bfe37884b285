"""libssi.so offers what ssi.h declares, and nothing else."""
import os
import pathlib
import re
import subprocess
import unittest

LIBRARY = pathlib.Path(os.environ["SSI_BUILD"]) / "lib" / "libssi" / "libssi.so.0"
HEADER = pathlib.Path(os.environ["SSI_SOURCE"]) / "lib" / "libssi" / "ssi.h"


class Symbols(unittest.TestCase):
    def test_the_header_and_the_library_agree(self):
        declared = set(re.findall(r"^int (ssi_\w+)\(", HEADER.read_text(), re.M))
        out = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], text=True, check=True,
                             capture_output=True).stdout
        offered = {line.split()[-1] for line in out.splitlines() if " T " in line}
        self.assertEqual(offered, {f"{name}@@LIBSSI_0" for name in declared})


if __name__ == "__main__":
    unittest.main()
