"""ssid as a service of systemd: a manager of its own runs in each node."""
import lab
from lab import until

MANAGER = "/lib/systemd/systemd"
# What the unit waits for; a node has none of the machine's own units.
TARGETS = ["sysinit", "basic", "multi-user", "shutdown", "network-online", "remote-fs", "time-sync"]
# The log goes where ssi-lab looks for it.
START = """
set -e
mkdir -p /run/units/ssid.service.d
printf '[Service]\\nStandardError=append:/var/log/ssid.log\\n' >/run/units/ssid.service.d/log.conf
: >/var/log/ssid.log
for target in %s; do
    printf '[Unit]\\nDefaultDependencies=no\\n' >/run/units/$target.target
done
exec unshare --pid --mount --fork --mount-proc \\
    env container=lab SYSTEMD_UNIT_PATH=/run/units:/usr/local/lib/systemd/system \\
    %s --system --unit=multi-user.target --log-target=console
""" % (" ".join(TARGETS), MANAGER)


class Systemd(lab.Tests):
    @classmethod
    def setUpClass(cls):
        cls.lab = lab.Lab(2, "--no-ssid")
        for node in cls.lab.nodes:
            cls.lab.start(node, "sh", "-c", START, user="root")
            until(lambda n=node: cls.systemctl(n, "is-active", "multi-user.target").status == 0)

    @classmethod
    def inside(cls, node, *command):
        """Run a command where the manager is."""
        return cls.lab.run(node, "sh", "-c", 'exec nsenter --target "$(pgrep -xo systemd)" '
                           '--mount --pid "$@"', "sh", *command, user="root")

    @classmethod
    def systemctl(cls, node, *arguments):
        return cls.inside(node, "systemctl", *arguments)

    def property_of(self, node, name):
        return self.systemctl(node, "show", "--value", "--property", name, "ssid").text.strip()

    def do(self, node, *command):
        return self.lab.run(node, *command, user="root", check=True).text

    def test_a_service_from_joining_to_its_end(self):
        # Without a cluster there is nothing to start, and that is no failure.
        self.assert_result(self.systemctl("n1", "start", "ssid"), 0)
        self.assertEqual(self.property_of("n1", "ConditionResult"), "no")

        # Started is ready: the tools work at once, with no waiting.
        token = self.do("n1", "ssi-admin", "init", "--quiet", "--address", "10.77.0.1").strip()
        self.assert_result(self.systemctl("n1", "start", "ssid"), 0)
        self.assertEqual(self.do("n1", "ssi-run", "hostname"), "n1\n")
        self.do("n2", "ssi-admin", "join", "--quiet", "--address", "10.77.0.2", token)
        self.assert_result(self.systemctl("n2", "start", "ssid"), 0)
        self.assertEqual(self.do("n2", "ssi-run", "--node", "n1", "hostname"), "n1\n")

        # A program goes on, whatever becomes of the service.
        program = self.start("n2", "ssi-run", "--node", "n1", "sh", "-c",
                             "echo $$; read line; echo $line; exit 5")
        pid = int(program.expect("^[0-9]+$")[0])
        restarts = int(self.property_of("n1", "NRestarts"))
        self.inside("n1", "sh", "-c", "kill -9 $(cat /run/ssi/ssid.pid)")
        until(lambda: int(self.property_of("n1", "NRestarts")) == restarts + 1)
        self.lab.settle()
        self.assertEqual(self.lab.where(pid, "n2"), "n1")
        self.assert_result(self.systemctl("n1", "restart", "ssid"), 0)
        self.assert_result(self.systemctl("n1", "stop", "ssid"), 0)
        self.assertEqual(self.property_of("n1", "Result"), "success")
        self.assertEqual(self.do("n1", "pgrep", "-f", "read line; echo").count("\n"), 1)
        self.assert_result(self.systemctl("n1", "start", "ssid"), 0)
        self.lab.settle()
        self.assertEqual(self.lab.where(pid, "n2"), "n1")
        program.write("still here\n")
        result = program.result()
        self.assertEqual((result.status, result.out), (5, b"%d\nstill here\n" % pid))

    def test_a_wrong_configuration_is_not_tried_again(self):
        self.do("n2", "sh", "-c", "mkdir -p /etc/ssi && echo '[paths' >/etc/ssi/ssid.conf")
        self.systemctl("n2", "stop", "ssid")
        restarts = self.property_of("n2", "NRestarts")
        self.assertNotEqual(self.systemctl("n2", "start", "ssid").status, 0)
        self.assertEqual(self.property_of("n2", "ExecMainStatus"), "78")
        self.assertEqual(self.property_of("n2", "NRestarts"), restarts)
        self.do("n2", "rm", "/etc/ssi/ssid.conf")
        self.systemctl("n2", "reset-failed", "ssid")
        self.assert_result(self.systemctl("n2", "start", "ssid"), 0)
        self.lab.settle()


if __name__ == "__main__":
    lab.main()
