/*
 * libFuzzer: bytes that a peer or a tool can choose.  The first one says which
 * decoder takes the rest: a launch, a message of the room, a command to a shadow.
 */
#include "process.pb-c.h"
#include "process_wire.h"
#include "shadow_command.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void launch(const uint8_t *data, size_t len)
{
	struct process_launch *l = NULL;

	(void)process_launch_unpack(&l, data, len);
	process_launch_free(l);
}

static void shadow_side(const uint8_t *data, size_t len)
{
	static struct shadow_command c;
	char *argv[SHADOW_ARGS_MAX + 1];
	volatile size_t total = 0;
	int n;

	if (len > sizeof(c))
		return;
	memset(&c, 0x41, sizeof(c)); /* no NUL by chance */
	memcpy(&c, data, len);
	if (!shadow_command_ok(&c, len) || c.verb != SHADOW_EXEC)
		return;
	n = shadow_command_args(&c, argv);
	for (int i = 0; i < n; i++)
		total += strlen(argv[i]);
	if (n && argv[n - 1] + strlen(argv[n - 1]) != c.data + c.n_data - 1)
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len == 0)
		return 0;
	if (data[0] & 1)
		launch(data + 1, len - 1);
	else
		shadow_side(data + 1, len - 1);
	return 0;
}
