#!/bin/bash
# The laboratory keeps its promises: nodes share nothing they should not, faults
# do what they say, and nothing is left when it ends, in whatever way it ends.
# Needs root; uses labs of its own names.  SSI_LAB names the program under test.
# shellcheck disable=SC2016 # much is expanded in a node
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ssi_lab=${SSI_LAB:-$here/../../cli/ssi-lab}
one=test-$$-a two=test-$$-b
scratch=$(mktemp -d)
failures=0 checks=0

skip() { echo "SKIP: $1"; rm -rf "$scratch"; exit 77; }

[[ $EUID == 0 ]] || skip "needs root"
unshare --mount --pid --net --fork true 2>/dev/null || skip "may not make namespaces"
[[ -e /sys/fs/cgroup/cgroup.procs || -e /sys/fs/cgroup/unified/cgroup.procs ]] || skip "no cgroup v2"
for tool in nft python3 jq; do type -P $tool >/dev/null || skip "$tool is not installed"; done

lab() { timeout --kill-after=1 15 "$ssi_lab" --name "$one" -q "$@" </dev/null; }
in_node() { lab exec "$@"; }

check() { # DESCRIPTION COMMAND...
	local what=$1
	shift
	checks=$((checks + 1))
	"$@" >"$scratch/out" 2>&1 && return
	failures=$((failures + 1))
	echo "FAILED: $what: $*"
	sed 's/^/    /' "$scratch/out"
}
fails() { ! "$@"; }
status() { # WANTED COMMAND...
	local wanted=$1 got=0
	shift
	"$@" || got=$?
	[[ $got == "$wanted" ]] || { echo "status $got, not $wanted"; return 1; }
}
says() { # WANTED COMMAND...
	local got
	got=$("${@:2}") || { echo "status $?: $got"; return 1; }
	[[ $got == "$1" ]] || { echo "says '$got', not '$1'"; return 1; }
}
one_line() { # STATUS COMMAND...: the error is one line that names the program
	status "$@" 2>"$scratch/err" || return 1
	cat "$scratch/err"
	[[ $(wc -l <"$scratch/err") == 1 && $(<"$scratch/err") == "ssi-lab: "* ]]
}

# What a lab leaves: processes (and so namespaces), cgroups, mounts, links, files.
traces() {
	local name=$1 file
	for file in /proc/[0-9]*/cmdline; do
		tr '\0' ' ' 2>/dev/null <"$file" | grep -F -- "--name $name " | sed "s|^|$file: |"
	done
	# A zombie stays in a cgroup that is gone until its parent, maybe the machine's init, waits.
	grep -s "ssi-lab.$name" /proc/[0-9]*/cgroup | grep -v ' (deleted)$'
	find /sys/fs/cgroup -name "ssi-lab.$name*" 2>/dev/null
	grep -hs "ssi-lab/$name/" /proc/[0-9]*/mountinfo
	ip -brief link | grep -E '^(s[0-9]+|lab)[@ ]'
	ls -d "/run/ssi-lab/$name" "/var/lib/ssi-lab/$name" 2>/dev/null
	grep -s "$name" /run/mount/utab
}
namespaces() { # PID...: of these processes, or all
	local pids=("$@")
	((${#pids[@]})) || pids=(/proc/[0-9]*)
	readlink "${pids[@]/%//ns/net}" "${pids[@]/%//ns/mnt}" 2>/dev/null | sort -u
}
nothing_left() { # NAME: soon, for the guard and the kernel work behind us
	local end=$((SECONDS + 5)) rest
	while rest=$(traces "$1"); [[ -n $rest ]]; do
		((SECONDS < end)) || { echo "$rest"; return 1; }
		sleep 0.05
	done
}

cleanup() {
	local name
	for name in "$one" "$two"; do timeout 15 "$ssi_lab" --name "$name" -q down 2>/dev/null; done
	rm -rf "$scratch"
}
trap cleanup EXIT

test_arguments() {
	local arguments
	while read -r arguments; do
		# shellcheck disable=SC2086 # meant to split
		check "usage: '$arguments'" one_line 2 "$ssi_lab" $arguments
	done <<-'END'

		frobnicate
		up
		up 0
		up -1
		up 3x
		up 99999
		up 1 2
		up 1 --one-way
		up 1 --name ../x
		--name
		list x
		list --no-ssid
		up 1 --config /nonexistent
		list --config /etc/passwd
		kill
		kill n1 n2
		cut n1
		cut n1 n2 n3
		heal n1 n2 n3
		pause
		logs
		logs n1 --json
		down now
		exec
		exec n1
		--what
		__boot n1 --what
	END
	check "help" status 0 "$ssi_lab" --help
	check "version" status 0 "$ssi_lab" --version
	check "no lab: list" one_line 4 lab list
	check "no lab: exec" one_line 4 lab exec n1 -- true
	check "no lab: down" one_line 4 lab down
	install -D "$ssi_lab" "$scratch/bin/ssi-lab" # where an ordinary user can read it
	chmod 755 "$scratch"
	check "not root" one_line 3 setpriv --reuid=65534 --clear-groups "$scratch/bin/ssi-lab" list
}

test_isolation() {
	local dir
	for dir in /tmp /etc /var/lib /home/ssi /root /run /dev/shm; do
		check "write $dir" in_node n1 -- sh -c "echo n1 >$dir/mark"
		check "$dir is n1's own" fails in_node n2 -- test -e $dir/mark
	done
	check "write /shared" in_node n1 --user ssi -- sh -c 'echo hello >/shared/mark'
	check "/shared is everybody's" says hello in_node n3 -- cat /shared/mark
	check "/ is read-only" fails in_node n1 -- touch /x
	check "/usr is read-only" fails in_node n1 -- touch /usr/x
	check "the labs' state is hidden" fails in_node n1 -- ls /var/lib/ssi-lab
	check "hostname" says n2 in_node n2 -- uname -n
	check "names" says "10.77.0.3" in_node n1 -- sh -c "getent hosts n3 | cut -d ' ' -f 1"
	check "cgroup v2 only, own root" says exec,init, in_node n1 -- \
		sh -c 'cd /sys/fs/cgroup && grep -l . cgroup.procs */cgroup.procs | cut -d / -f 1 | sort | tr "\n" ,'
	check "processes are not seen" says 1 in_node n1 -- sh -c 'ls -d /proc/[0-9]* | grep -c "/1$"'
	check "System V IPC is own" status 0 in_node n1 -- ipcmk -M 4096
	check "System V IPC is not shared" says 0 in_node n2 -- sh -c 'ipcs -m | grep -c 0x || true'
	check "a terminal can be made" in_node n1 -- python3 -c 'import os; os.openpty()'
	check "no route out" fails in_node n1 -- python3 -c \
		'import socket; socket.socket(2, 2).connect(("192.0.2.1", 9))'
	exec {stray}</etc/passwd
	check "no descriptor comes in" fails in_node n1 -- test -e "/proc/self/fd/$stray"
	check "nor has pid 1 one" fails in_node n1 -- \
		sh -c 'ls -l /proc/1/fd | grep -vE "total|/dev/null|/run/initctl"'
	exec {stray}<&-
}

test_exec() {
	check "status" status 42 in_node n1 -- sh -c 'exit 42'
	check "not found" status 127 in_node n1 -- /no/such/program
	check "not executable" status 126 in_node n1 -- /etc/passwd
	check "signal" status 137 in_node n1 -- sh -c 'kill -9 $$'
	check "user" says "ssi /home/ssi" in_node n1 --user ssi -- sh -c 'echo "$(id -un) $HOME"'
	check "user's rights" fails in_node n1 --user ssi -- cat /etc/shadow
	check "no such user" one_line 4 in_node n1 --user nobody-here -- true
	check "cwd" says /var/tmp in_node n1 --cwd /var/tmp -- pwd
	check "without --" says "-n x" in_node n1 printf '%s %s' -n x
	check "arguments stay apart" says 'a b|$c|' in_node n1 -- printf '%s|' 'a b' "\$c"
	check "stdin" says through bash -c "echo through | '$ssi_lab' --name $one exec n2 -- cat"
	check "environment is clean" says "" env LEAK=1 "$ssi_lab" --name "$one" exec n1 -- sh -c 'echo $LEAK'
	check "no such node" one_line 4 in_node n9 -- true
	timeout 0.5 "$ssi_lab" --name "$one" exec n1 -- sleep 77
	check "killed with its exec" fails in_node n1 -- \
		sh -c 'ps -C sleep -o stat=,args= | grep -v ^Z' # the machine's init reaps it, in its time
	check "pid 1 reaps" says 0 in_node n1 -- sh -c \
		'for i in 1 2 3; do (true & exec true); done; sleep 0.2; ps -e -o ppid=,stat= | grep -c "^ *1 *Z" || true'
}

# Datagrams, because a cut one way must not be seen as both: FROM -> TO?
arrives() {
	local from=$1 to=$2 got
	rm -f "/var/lib/ssi-lab/$one/shared/listening"
	in_node "$to" -- python3 -c '
import socket
s = socket.socket(2, 2); s.bind(("", 7777)); s.settimeout(5)
open("/shared/listening", "w").close()
print(s.recv(9).decode()) # "end" comes from this node itself, when all was sent' >"$scratch/got" &
	in_node "$from" -- python3 -c '
import os, socket, sys, time
s = socket.socket(2, 2)
while not os.path.exists("/shared/listening"): time.sleep(0.01)
for i in range(5):
    s.sendto(b"packet", (sys.argv[1], 7777))
    time.sleep(0.02)' "$to"
	in_node "$to" -- python3 -c '
import socket
socket.socket(2, 2).sendto(b"end", ("127.0.0.1", 7777))'
	wait $!
	got=$(<"$scratch/got")
	[[ $got == packet ]] || { echo "$from -> $to: $got"; return 1; }
}

test_network() {
	check "n1 -> n2" arrives n1 n2
	check "cut" lab cut n1 n2
	check "cut: not n1 -> n2" fails arrives n1 n2
	check "cut: not n2 -> n1" fails arrives n2 n1
	check "cut: n3 -> n2" arrives n3 n2
	check "heal" lab heal n2 n1
	check "heal: n2 -> n1" arrives n2 n1
	check "cut one way" lab cut n1 n2 --one-way
	check "one way: not n1 -> n2" fails arrives n1 n2
	check "one way: n2 -> n1" arrives n2 n1
	check "listed" says '[["n1","n2"]]' bash -c "'$ssi_lab' --name $one list --json | jq -c .cuts"
	check "heal all" lab heal
	check "healed: n1 -> n2" arrives n1 n2
	check "a node is not cut from itself" one_line 2 lab cut n1 n1
	check "nor from nobody" one_line 4 lab cut n1 n7
}

state() { lab list --json | jq -r ".nodes[] | select(.name == \"$1\").state"; }

test_power() {
	in_node n2 -- sh -c 'echo kept >/var/lib/mark; echo lost >/tmp/mark'
	check "kill" lab kill n2
	check "kill: off" says off state n2
	check "kill twice" one_line 6 lab kill n2
	check "exec when off" one_line 6 in_node n2 -- true
	check "start" lab start n2
	check "start twice" one_line 6 lab start n2
	check "disk is kept" says kept in_node n2 -- cat /var/lib/mark
	check "memory is lost" fails in_node n2 -- test -e /tmp/mark
	check "network is back" arrives n1 n2

	in_node n3 -- sh -c 'while :; do echo x; sleep 0.02; done >/var/tmp/ticks' &
	sleep 0.4
	check "pause" lab pause n3
	check "pause: state" says paused state n3
	check "pause: exec" one_line 6 in_node n3 -- true
	local ticks=/var/lib/ssi-lab/$one/n3/var/tmp/ticks before
	before=$(stat -c %s "$ticks")
	sleep 0.2
	check "paused: nothing runs" says "$before" stat -c %s "$ticks"
	check "resume" lab resume n3
	sleep 0.2
	check "resumed: it runs" test "$(stat -c %s "$ticks")" -gt "$before"
	check "pause again" lab pause n3
	check "kill a paused node" lab kill n3
	check "start it" lab start n3
	wait
}

test_two_labs() {
	check "second lab" "$ssi_lab" --name "$two" -q up 2 --no-ssid
	check "second lab: own files" fails "$ssi_lab" --name "$two" exec n1 -- test -e /shared/mark
	check "second lab: own nodes" one_line 4 "$ssi_lab" --name "$two" exec n3 -- true
	check "second lab: down" "$ssi_lab" --name "$two" -q down
	check "second lab: nothing left of it" test -z "$(traces "$two")"
	check "first lab goes on" in_node n1 -- true
}

test_killed() {
	local delay
	for delay in 0.05 0.2 0.4 0.7 1; do
		"$ssi_lab" --name "$one" -q up 3 --no-ssid &
		sleep "$delay"
		kill -9 $!
		wait $! 2>/dev/null
		check "up killed after $delay s" nothing_left "$one"
	done
	"$ssi_lab" --name "$one" -q up 3 --no-ssid &
	sleep 0.4
	kill -TERM $!
	check "up terminated" status 143 wait $!
	check "up terminated: all gone" nothing_left "$one"
}

began=$SECONDS
test_arguments
cd / # from any directory
check "up" lab up 3 --no-ssid
check "up twice" one_line 6 lab up 3 --no-ssid
test_isolation
test_exec
test_network
test_power
test_two_labs
mapfile -t pids < <(lab list --json | jq '.nodes[].pid'; cat "/run/ssi-lab/$one/switch")
own=$(namespaces "${pids[@]/#//proc/}" | grep -vxF "$(readlink /proc/self/ns/mnt)") # the switch has the machine's files
check "namespaces of its own" test "$(wc -l <<<"$own")" -ge 7
check "a half-dead lab" kill -9 "${pids[1]}" "${pids[3]}"
check "down" lab down
check "no namespace is left" test -z "$(comm -12 <(echo "$own") <(namespaces))"
check "down twice" one_line 4 lab down
check "nothing is left" nothing_left "$one"
test_killed
echo "$checks checks, $failures failed, $((SECONDS - began)) s"
((failures == 0))
