/* What is kept under numbers: apart from the door, since the simulated one has it as well. */
#include "space.h"

#include "buf.h"
#include "err.h"

#include <stdlib.h>
#include <string.h>

struct numbers {
	size_t prefix_len;
	struct buf b;
};

static int add(void *owner, const char *name)
{
	struct numbers *n = owner;
	int number = atoi(name + n->prefix_len);

	return buf_append(&n->b, &number, sizeof(number));
}

int space_kept_numbers(struct space *s, const char *prefix, int **ret, size_t *ret_n)
{
	struct numbers n = { .prefix_len = strlen(prefix) };
	int r = space_each_kept(s, prefix, add, &n);

	if (r != 0) {
		buf_fini(&n.b);
		return err_fold(r);
	}
	*ret_n = n.b.len / sizeof(int);
	*ret = (int *)(void *)n.b.data;
	return 0;
}
