#pragma once
/*
 * Where a new program goes: a pure function of the view and its loads.
 */
#include "membership.h"
#include "rpc.h"

#include <stdbool.h>

/*
 * @names: candidates; none: @self only, or every node that
 * is up when @best.  @best: the least loaded of the candidates (runnable tasks a CPU, then
 * free memory; who was not heard of yet comes last), else the first that is up.  RPC_OK, or RPC_NOT_FOUND / RPC_DOWN with a line
 * in @text.
 */
enum rpc_status place_choose(const struct membership *m, node_id self, char *const *names,
			     size_t n_names, bool best, node_id *ret, char *text, size_t text_size);
