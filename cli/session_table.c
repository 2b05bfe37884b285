/* What the tools print: libsmartcols is for those only that have a table. */
#include "session.h"

#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct libscols_table *session_table(const struct session_options *o, const char *name,
				     const struct session_column *columns, size_t n_columns)
{
	struct libscols_table *t;

	/* Whether the terminal shows more than ASCII. */
	(void)setlocale(LC_CTYPE, "");
	t = scols_new_table();
	if (!t)
		session_exit(EXIT_FAILED, "out of memory");
	scols_table_set_name(t, name);
	scols_table_enable_json(t, o->json);
	for (size_t i = 0; i < n_columns; i++) {
		struct libscols_column *c = scols_table_new_column(
			t, columns[i].name, columns[i].width_hint, columns[i].flags);

		if (!c)
			session_exit(EXIT_FAILED, "out of memory");
		scols_column_set_json_type(c, columns[i].json_type);
	}
	return t;
}

struct libscols_line *session_line(struct libscols_table *table)
{
	struct libscols_line *line = scols_table_new_line(table, NULL);

	if (!line)
		session_exit(EXIT_FAILED, "out of memory");
	return line;
}

void session_cell(struct libscols_line *line, size_t column, const char *format, ...)
{
	char *text;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&text, format, ap) < 0 || scols_line_refer_data(line, column, text) < 0)
		session_exit(EXIT_FAILED, "out of memory");
	va_end(ap);
}

void session_cell_bytes(const struct session_options *o, struct libscols_line *line, size_t column,
			uint64_t bytes)
{
	static const char units[] = "BKMGTPE";
	double n = (double)bytes;
	size_t u = 0;

	if (o->json)
		return session_cell(line, column, "%llu", (unsigned long long)bytes);
	while (n >= 1024 && u + 2 < sizeof(units)) {
		n /= 1024;
		u++;
	}
	session_cell(line, column, u && n < 10 ? "%.1f%c" : "%.0f%c", n, units[u]);
}

/* "name": [...], as the table has it between its braces. */
static void print_array(struct libscols_table *table)
{
	char *text, *begin, *end;

	if (scols_print_table_to_string(table, &text) < 0)
		session_exit(EXIT_FAILED, "out of memory");
	begin = strchr(text, '{');
	end = strrchr(text, '}');
	/* Without lines libsmartcols prints nothing, not even an empty list. */
	if (begin && end > begin) {
		while (end[-1] == '\n' || end[-1] == ' ')
			end--;
		printf("%.*s", (int)(end - begin - 1), begin + 1);
	} else {
		printf("\n   \"%s\": []", scols_table_get_name(table));
	}
	free(text);
}

void session_print_with(struct libscols_table *table, struct libscols_table *more)
{
	if (scols_table_is_json(table)) {
		printf("{\n   \"version\": 1,");
		print_array(table);
		if (more) {
			printf(",");
			print_array(more);
		}
		printf("\n}\n");
	} else {
		scols_print_table(table);
	}
	scols_unref_table(table);
	scols_unref_table(more);
}

void session_print(struct libscols_table *table)
{
	session_print_with(table, NULL);
}

static size_t utf8_len(const unsigned char *p)
{
	size_t n = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

void session_json_string(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	putchar('"');
	while (*p) {
		size_t n = utf8_len(p);

		if (*p == '"' || *p == '\\')
			printf("\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f)
			printf("\\u%04x", *p);
		else if (n)
			printf("%.*s", (int)n, (const char *)p);
		else
			putchar('?');
		p += n ? n : 1;
	}
	putchar('"');
}
