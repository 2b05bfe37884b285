"""--help, man pages, ssid --dump-config and the example configuration say the same."""

import configparser
import re
import shutil
import subprocess
import unittest

from tools import BUILD, PAGES, SOURCE, path, run

MAN = SOURCE / "cli" / "man"
LONG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def page(name):
    return (MAN / f"{name}.scd").read_text()


def headings(text):
    return re.findall(r"^# (.*)", text, re.M)


def defined(text):
    """Options that a page defines: lines like "*-q*, *--quiet* _X_" in front of a tab."""
    lines = re.findall(r"^(\*-.*)\n\t", text, re.M)
    return {o for line in lines for o in re.findall(r"\*(--?[a-zA-Z][a-z-]*)\*", line)}


def helped(text):
    """Options that a help lists: at the beginning of a line."""
    lines = re.findall(r"^ +((?:-\w, )?-[-\w]+)", text, re.M)
    return {o for line in lines for o in line.split(", ")}


class Options(unittest.TestCase):
    def test_every_option_of_the_help_is_in_the_page_and_none_more(self):
        for tool, section in PAGES.items():
            with self.subTest(tool=tool):
                text, result = page(f"{tool}.{section}"), run([tool, "--help"])
                self.assertEqual(result.returncode, 0)
                if tool == "ssi-lab":  # lists options beside its commands
                    self.assertEqual(set(LONG.findall(result.stdout)), set(LONG.findall(text)))
                else:
                    self.assertEqual(helped(result.stdout), defined(text))

    def test_the_help_names_no_option_that_it_does_not_list(self):
        for tool in PAGES:
            if tool == "ssi-lab":
                continue
            with self.subTest(tool=tool):
                text = run([tool, "--help"]).stdout
                self.assertLessEqual(set(LONG.findall(text)), helped(text))

    def test_the_page_mentions_no_option_that_there_is_not(self):
        known = {o for tool in PAGES for o in LONG.findall(run([tool, "--help"]).stdout)}
        for file in MAN.glob("*.scd"):
            with self.subTest(page=file.name):
                # As marked up: other programs' options stand in examples only.
                named = set(re.findall(r"\*(--[a-z][a-z-]*)\*", file.read_text()))
                self.assertLessEqual(named, known)

    def test_commands_of_the_help_are_in_the_page(self):
        for tool in ["ssi", "ssi-admin"]:
            with self.subTest(tool=tool):
                commands = re.findall(r"^  ([a-z]+) ", run([tool, "--help"]).stdout, re.M)
                self.assertTrue(commands)
                for command in commands:
                    self.assertRegex(page(f"{tool}.{PAGES[tool]}"), rf"\*{command}\*|\*{tool} {command}\*")

    def test_versions_agree(self):
        versions = {run([t, "--version"]).stdout.split()[-1] for t in PAGES}
        self.assertEqual(len(versions), 1, versions)


class Pages(unittest.TestCase):
    def test_pages_have_their_sections(self):
        for tool, section in PAGES.items():
            with self.subTest(tool=tool):
                wanted = {"NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"}
                self.assertLessEqual(wanted, set(headings(page(f"{tool}.{section}"))))

    def test_pages_of_ours_that_are_referred_to_exist(self):
        for file in MAN.glob("*.scd"):
            refs = re.findall(r"\*((?:ssi[\w.-]*|linuxssi))\*\((\d)\)", file.read_text())
            for name, section in refs:
                with self.subTest(page=file.name, to=name):
                    self.assertTrue((MAN / f"{name}.{section}.scd").exists())

    @unittest.skipUnless(shutil.which("scdoc"), "scdoc is not installed")
    def test_pages_are_understood_by_scdoc(self):
        for file in MAN.glob("*.scd"):
            with self.subTest(page=file.name), file.open() as source:
                subprocess.run(["scdoc"], stdin=source, stdout=subprocess.DEVNULL, check=True)

    def test_every_page_is_built(self):
        listed = (MAN / "meson.build").read_text()
        for file in MAN.glob("*.scd"):
            self.assertIn(f"'{file.stem}'", listed)


class Configuration(unittest.TestCase):
    def setUp(self):
        out = run(["ssid", "--dump-config"], "--config", "/nonexistent/ssid.conf").stdout
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(out)
        self.keys = {(s, k): v for s in parser.sections() for k, v in parser[s].items()}
        self.assertTrue(self.keys)

    def test_keys_are_those_of_the_page(self):
        section, found = None, {}
        for line in page("ssid.conf.5").replace("\\_", "_").splitlines():
            heading = re.match(r"# \[(.*)\]", line)
            key = re.match(r"\*(\S+)\* = _(.*)_$", line)
            if line.startswith("# "):
                section = heading and heading[1].lower()
            elif key and section:
                found[section, key[1]] = key[2]
        self.assertEqual(set(found), set(self.keys))
        for key, value in found.items():
            if value.startswith("PREFIX/"):
                self.assertTrue(self.keys[key].endswith(value.removeprefix("PREFIX")), key)
            else:
                self.assertEqual(value, self.keys[key], key)

    def test_keys_are_those_of_the_example(self):
        text = (BUILD / "systemd" / "ssid.conf").read_text()
        # Without the marks in front of the keys it is a configuration that changes nothing.
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.M))
        found = {(s, k): v for s in parser.sections() for k, v in parser[s].items()}
        self.assertEqual(found, self.keys)

    def test_the_unit_starts_what_is_installed(self):
        unit = (BUILD / "systemd" / "ssid.service").read_text()
        self.assertRegex(unit, r"(?m)^ExecStart=/\S*/ssid$")
        self.assertNotIn("@", re.sub(r"(?m)^#.*", "", unit))
        self.assertTrue(path("ssid").exists())


if __name__ == "__main__":
    unittest.main()
