# bash completion for the tools of LinuxSSI                     -*- shell-script -*-
#
# Options are read from --help, so they are those of the tool that is installed.
# Nodes, PIDs and checkpoints are asked of this node's ssid, for two seconds at the
# most; without one there are none.
# shellcheck shell=bash

# The values of a key, one a line, of JSON as the tools print it: _ssi_values KEY TOOL...
_ssi_values() {
	local key=$1
	shift
	"$@" --json --timeout 2 2>/dev/null |
		sed -nE "s/^ *\"$key\": \"?([^\",]*)\"?,?\$/\1/p"
}

_ssi_types='node-added node-joined node-up node-lost node-left node-leaving node-stays node-removed leader
	vote-given vote-taken lease-held lease-lost app-started app-ended app-revived process-moved move-failed
	checkpoint-saved gap'

_ssi_capabilities() { printf '%s\n' {+,-}{CHANGE_KERRIGHED_CAP,CAN_MIGRATE,DISTANT_FORK,CHECKPOINTABLE}; }
_ssi_nodes() { _ssi_values node ssi-nodes --history; } # which has none of the problems'
_ssi_pids() { _ssi_values pid ssi-ps; }
_ssi_names() { _ssi_values name ssi-ps | sort -u; }
_ssi_apps() { _ssi_values app ssi-ps | sort -u; }

# In the directory of --dir, if it is on the line.
_ssi_checkpoints() {
	local i directory=()
	for ((i = 1; i < ${#COMP_WORDS[@]} - 1; i++)); do
		[[ ${COMP_WORDS[i]} != --dir ]] || directory=(--dir "${COMP_WORDS[i + 1]}")
	done
	_ssi_values name ssi-checkpoint --list "${directory[@]}"
}

_ssi_options() { # of TOOL
	"$1" --help 2>/dev/null | grep -oE -- '(^|[[:space:],])--?[a-zA-Z][a-z-]*' | tr -d ' ,\t' | sort -u
}

# Commands of TOOL: the indented words of the help that no option begins.
_ssi_commands() {
	"$1" --help 2>/dev/null | sed -nE 's/^  ([a-z]+)( .*)?$/\1/p'
}

# How many words that are no options, and no values of options, stand before this one.
_ssi_position() { # OPTIONS-WITH-VALUE
	local i n=0
	for ((i = 1; i < COMP_CWORD; i++)); do
		case " $1 " in
		*" ${COMP_WORDS[i]} "*) ((i++)) ;;
		*) [[ ${COMP_WORDS[i]} == -* ]] || ((n++)) ;;
		esac
	done
	echo "$n"
}

_ssi_offer() { # WORDS: those that begin with the word at the cursor
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "${COMP_WORDS[COMP_CWORD]}")
}

_ssi_files() { # -f or -d
	compopt -o filenames 2>/dev/null
	mapfile -t COMPREPLY < <(compgen "$1" -- "${COMP_WORDS[COMP_CWORD]}")
}

# The value of option PREV of TOOL; false: it has none.
_ssi_value() { # TOOL PREV
	case $1,$2 in
	ssi-capset,-[epdib] | ssi-capset,--*effective | ssi-capset,--*permitted | ssi-capset,--both) _ssi_offer "$(_ssi_capabilities)" ;;
	ssi-capset,-k | ssi-capset,--pid) _ssi_offer "$(_ssi_pids)" ;;
	*,--socket | ssi-run,-o | ssi-run,--output | ssi,--config | ssid,--config) _ssi_files -f ;;
	*,--dir | *,--state | *,--cwd) _ssi_files -d ;;
	ssi-run,--node | ssi-ps,--node | ssi-events,--node | ssi-restart,--on) _ssi_offer "$(_ssi_nodes)" ;;
	ssi-run,--nodes | ssi-admin,-n | ssi-admin,--nodes) _ssi_node_list ;;
	ssi-events,--type) _ssi_offer "$_ssi_types" ;;
	ssi-ps,--app) _ssi_offer "$(_ssi_apps; _ssi_names)" ;;
	ssi-checkpoint,--inspect | ssi-checkpoint,--rm) _ssi_offer "$(_ssi_checkpoints)" ;;
	ssi-lab,--user) mapfile -t COMPREPLY < <(compgen -u -- "${COMP_WORDS[COMP_CWORD]}") ;;
	ssi-admin,--count | ssi-admin,-c | ssi-admin,--total | ssi-admin,-t | ssi-admin,--node | *,--timeout | *,--max-downtime | *,--wait | *,--lifetime | *,--address | *,--app | *,--since | ssi-lab,--name | \
		ssi-checkpoint,-d | *,--description) COMPREPLY=() ;;
	*) return 1 ;;
	esac
}

_ssi_node_list() { # "n1,n2,...": the nodes behind the last comma
	local word=${COMP_WORDS[COMP_CWORD]} before=
	[[ $word != *,* ]] || before=${word%,*},
	compopt -o nospace 2>/dev/null
	mapfile -t COMPREPLY < <(compgen -P "$before" -W "$(_ssi_nodes)" -- "${word##*,}")
}

# Where the program begins: from there on it is another command's line.
_ssi_run_program() {
	local i
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--) ((i++)) && break ;;
		-o | --output | --node | --nodes | --app | --timeout | --socket) ((i++)) ;;
		-*) ;;
		*) break ;;
		esac
	done
	((i <= COMP_CWORD)) || return 1
	if declare -F _command_offset >/dev/null; then
		_command_offset "$i"
	elif ((i == COMP_CWORD)); then
		mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
	else
		_ssi_files -f
	fi
}

_ssi_admin_word() {
	case ${COMP_WORDS[COMP_CWORD - 1]} in
	nodes) _ssi_offer "add del" ;;
	cluster) _ssi_offer "status shutdown" ;;
	esac
}

_ssi_operand() { # TOOL
	local with_value="-e -p -i -b -k --effective --permitted --inheritable-effective --inheritable-permitted --both --pid --nodes --count --total --timeout --max-downtime --socket --dir -d --description --node --app --on --config --wait --address --lifetime --state --name --user --cwd --since --type"
	local position
	position=$(_ssi_position "$with_value")
	case $1,$position in
	ssi-migrate,0 | ssi-checkpoint,0) _ssi_offer "$(_ssi_pids; _ssi_names)" ;;
	ssi-capset,*) _ssi_offer "$(_ssi_pids; _ssi_capabilities)" ;;
	ssi-ps,*) _ssi_offer "$(_ssi_pids)" ;;
	ssi-migrate,1) _ssi_offer "$(_ssi_nodes)" ;;
	ssi-restart,0) _ssi_offer "$(_ssi_checkpoints)" ;;
	ssi_add_nodes,* | ssi_remove_nodes,*) _ssi_node_list ;;
	ssi-admin,1) _ssi_admin_word ;;
	ssi,0 | ssi-admin,0 | ssi-lab,0) _ssi_offer "$(_ssi_commands "$1")" ;;
	ssi-lab,*) _ssi_offer "$(ssi-lab list 2>/dev/null | sed -nE 's/^(n[0-9]+) .*/\1/p')" ;;
	esac
}

_ssi() {
	local tool=${1##*/} word=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	COMPREPLY=()
	if _ssi_value "$tool" "$prev"; then
		return
	elif [[ $word == -* ]]; then
		_ssi_offer "$(_ssi_options "$1")"
	elif [[ $tool == ssi-run ]]; then
		_ssi_run_program
	else
		_ssi_operand "$tool"
	fi
}

complete -F _ssi ssi ssi_add_nodes ssi_remove_nodes ssi-admin ssi-capset ssi-checkpoint ssi-events ssi-lab ssi-migrate ssi-nodes ssi-ps ssi-restart ssi-run ssid
