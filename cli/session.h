#pragma once
/*
 * What every tool does alike: options, the connection to this node's ssid, exit
 * codes, errors, progress, tables.
 */
#include "control.pb-c.h"

#include <libsmartcols.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes: those of enum rpc_status and of ssi-run's program. */
enum {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NOT_PERMITTED = 3,
	EXIT_NOT_FOUND = 4,
	EXIT_UNSUPPORTED = 5,
	EXIT_CONFLICT = 6,
	EXIT_TIMEOUT = 7,
	EXIT_DOWN = 8,
};

/* Options of every tool; parsed out of argv by session_options(). */
struct session_options {
	bool json;
	bool quiet;
	uint64_t timeout_ms; /* 0: the default */
	const char *socket;  /* of ssid */
};

struct session;

/* Say "TOOL: text" on standard error. */
void session_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, then exit with @code. */
_Noreturn void session_exit(int code, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Wrong usage: say what, point at --help, exit EXIT_USAGE. */
_Noreturn void session_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Standard start of main(): the tool's name, and the options that all know
 * (--help prints @help, --version, --json, --quiet, --timeout S, --socket PATH).  What
 * else there is in @long_options (getopt_long's; `val`s above 255 or letters)
 * comes to @on_option.  Returns the index of the first operand; options may stand
 * behind operands unless @short_options begins with '+'.
 */
struct option;
int session_options(int argc, char **argv, const char *short_options,
		    const struct option *long_options, const char *help,
		    void (*on_option)(int val, const char *argument), struct session_options *ret);

/* Connect; exits with EXIT_DOWN and a remedy when no ssid answers. */
struct session *session_open(const struct session_options *o);
/* NULL instead of an exit: for those who try again. */
struct session *session_try(const struct session_options *o);
struct session *session_close(struct session *s);
int session_fd(const struct session *s);
/* What follows may take any time. */
void session_no_deadline(struct session *s);
/* How long is left, for poll(2); past the deadline: exit. */
int session_left_ms(const struct session *s);

/* Send one request, with descriptors.  False: the connection is broken. */
bool session_offer(struct session *s, const Ssi__Control__Request *q, const int *fds, size_t n_fds);
/* The same; exits on a broken connection. */
void session_send(struct session *s, const Ssi__Control__Request *q, const int *fds, size_t n_fds);
/* The next event, malloc()ed; NULL: ssid is gone.  The timeout of the options counts from open;
 * when it passes: exit EXIT_TIMEOUT. */
Ssi__Control__Event *session_receive(struct session *s);
/* The final event, progress shown on a terminal meanwhile; a failure exits with its code,
 * "TOOL: text".  NULL: ssid went away. */
Ssi__Control__Event *session_ask(struct session *s, const Ssi__Control__Request *q);
/* A successor of an ssid that went away, waited for; exits with EXIT_DOWN when none comes. */
struct session *session_await(const struct session_options *o);
/* As session_ask(); a lost ssid exits with EXIT_DOWN. */
Ssi__Control__Event *session_call(struct session *s, const Ssi__Control__Request *q);
/* The same on a connection of its own; another kind of answer than @expected exits. */
Ssi__Control__Event *session_once(const struct session_options *o, const Ssi__Control__Request *q,
				  Ssi__Control__Event__BodyCase expected);

/* Tables, which are JSON with --json: {"version":1,"NAME":[...]}. */
struct session_column {
	const char *name;
	double width_hint;
	int flags; /* SCOLS_FL_RIGHT, ... */
	int json_type; /* SCOLS_JSON_STRING, SCOLS_JSON_NUMBER, ... */
};
struct libscols_table *session_table(const struct session_options *o, const char *name,
				     const struct session_column *columns, size_t n_columns);
void session_cell(struct libscols_line *line, size_t column, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
struct libscols_line *session_line(struct libscols_table *table);
/* Print and free. */
void session_print(struct libscols_table *table);
/* The same; with --json @more is one more array of the object, else it is dropped. */
void session_print_with(struct libscols_table *table, struct libscols_table *more);

/* "4.2M", for people; plain bytes with --json. */
void session_cell_bytes(const struct session_options *o, struct libscols_line *line, size_t column,
			uint64_t bytes);

/* @text in quotes, whatever is in it. */
void session_json_string(const char *text);

/* A whole positive number, else wrong usage naming @what. */
uint64_t session_number(const char *text, uint64_t max, const char *what);
