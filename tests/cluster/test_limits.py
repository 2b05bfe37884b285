"""A node that lacks memory, room for images or PIDs takes no process, and keeps none by halves."""
import lab
from beats import Beats
from lab import until


class Limits(Beats):
    def refused(self, pid, because, target="n2", status=(1,)):
        """The move fails with one line of who, where and why; it goes on where it was."""
        before = self.left(target)
        r = self.lab.run("n3", "ssi-migrate", str(pid), target)
        self.assertIn(r.status, status, r)
        self.assertRegex(r.err.decode(),
                         rf"^ssi-migrate: process {pid} cannot move to {target}: .*{because}.*\n$")
        print(f"# {r.err.decode().strip()}", flush=True)
        self.assertEqual(self.assert_one(pid), "n1")
        self.assert_nothing_left(target, before)

    def moves(self, pid, target="n2"):
        r = self.lab.run("n3", "ssi-migrate", str(pid), target)
        self.assertEqual(r.status, 0, r)
        self.assertEqual(self.assert_one(pid), target)

    def test_a_target_without_room_for_images_takes_nothing(self):
        running, pid = self.beat(60)
        # Its memory does not go through images; what is left of them must not fit.
        self.lab.run("n2", "sh", "-c", "cd /run/ssi/private && mount -o remount,size=8m . && "
                     "cat /dev/zero >full; true", user="root", check=True)
        try:
            self.refused(pid, "no room for its images: .*image_max_mb")
        finally:
            self.lab.run("n2", "sh", "-c", "cd /run/ssi/private && rm full && "
                         "mount -o remount,size=50% .", user="root", check=True)
        self.moves(pid)
        self.end(running, pid)

    def test_a_program_larger_than_image_max_mb_is_not_taken(self):
        running, pid = self.beat(60)
        old = self.ssid_of("n2")
        self.lab.run("n2", "sh", "-c", "mkdir -p /etc/ssi/ssid.conf.d && printf '[limits]\\n"
                     "image_max_mb = 40\\n' >/etc/ssi/ssid.conf.d/limits.conf", user="root",
                     check=True)
        self.lab.kill_ssid("n2")
        self.await_successor("n2", old)
        self.refused(pid, "6[0-9] MiB of memory are more than image_max_mb allows")
        old = self.ssid_of("n2")
        self.lab.run("n2", "rm", "/etc/ssi/ssid.conf.d/limits.conf", user="root", check=True)
        self.lab.kill_ssid("n2")
        self.await_successor("n2", old)
        self.moves(pid)
        self.end(running, pid)

    def test_a_target_out_of_memory_takes_nothing(self):
        running, pid = self.beat(60)
        # The images go as they are read, so the program itself is all that must not fit.
        for megabytes in [30, 50]:
            # As the service manager does, where we may: others are killed before ssid.
            self.lab.run("n2", "sh", "-c", "echo -900 >/proc/$(cat /run/ssi/ssid.pid)/oom_score_adj",
                         user="root")
            with self.lab.limited("n2", "memory", megabytes << 20):
                self.refused(pid, "", status=[1, 8])
            self.lab.settle()
        # An ssid that came back without memory may have found that CRIU does not work.
        until(lambda: b"CRIU does not work" not in
              self.lab.run("n3", "ssi-migrate", "-n", str(pid), "n2").err, 30)
        self.moves(pid)
        self.end(running, pid)

    def test_a_target_out_of_pids_takes_nothing(self):
        running, pid = self.beat(1)
        taken = False
        for more in range(12):
            with self.lab.limited("n2", "pids", more):
                r = self.lab.run("n3", "ssi-migrate", str(pid), "n2")
                if r.status == 0:
                    taken = True
                    break
                print(f"# {more} more: {r.err.decode().strip()}", flush=True)
                self.assert_result(r, 1, f"^ssi-migrate: process {pid} cannot move to n2: ")
                self.assertEqual(self.assert_one(pid), "n1")
        self.assertGreater(more, 0, "the limit did not hold")
        self.assertTrue(taken, r)
        self.assertEqual(self.assert_one(pid), "n2")
        self.end(running, pid)

    def not_revived(self, pid):
        before = self.left("n2")
        r = self.lab.run("n3", "ssi-restart", "-b", "--on", "n2", str(pid))
        print(f"# {r.err.decode().strip()}", flush=True)
        self.assertEqual(r.status, 1, r)
        self.assertRegex(r.err.decode(), r"^ssi-restart: on n2: .{10,}\n$")
        self.lab.settle()
        self.assert_nothing_left("n2", before)
        self.assertEqual(self.lab.copies("beat"), [])
        self.assertNotIn(pid, self.lab.processes())

    def test_what_a_node_cannot_revive_for_want_of_something_it_revives_later(self):
        running, pid = self.beat(60)
        self.assertEqual(self.lab.run("n3", "ssi-checkpoint", "--kill", str(pid)).status, 0)
        self.assertEqual(running.result(10).status, 137)
        self.lab.run("n2", "mount", "-o", "remount,size=8m", "/run/ssi/private", user="root",
                     check=True)
        self.not_revived(pid)
        self.lab.run("n2", "mount", "-o", "remount,size=50%", "/run/ssi/private", user="root")
        for more in [0, 1, 2]:
            with self.lab.limited("n2", "pids", more):
                self.not_revived(pid)
        again = self.start("n3", "ssi-restart", "--on", "n2", str(pid))
        until(lambda: b"is back" in again.read("err"), 10, lambda: str(again.read("err")))
        self.assertEqual(self.assert_one(pid), "n2")
        self.end(again, pid)

    def test_a_revived_program_whose_output_nobody_wants_goes_on_writing(self):
        running = self.start("n1", "ssi-run", "-o", "@ID@", "sh", "-c",
                             "n=0; while :; do echo out; echo err >&2; n=$((n+1)); "
                             "echo $n >/shared/work/written; sleep 0.05; done")
        pid = running.app()
        running.expect("out")
        self.assertEqual(self.lab.run("n1", "ssi-checkpoint", "--kill", str(pid)).status, 0)
        running.result(10)
        r = self.lab.run("n3", "ssi-restart", "-b", "--on", "n2", str(pid))
        self.assertEqual(r.status, 0, r)

        def written():
            return int(self.lab.run("n1", "cat", "/shared/work/written").text or 0)

        before = written()
        until(lambda: written() > before + 20)
        self.assertEqual(self.lab.where(pid), "n2")


lab.main()
