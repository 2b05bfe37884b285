#pragma once
/*
 * The composition: one node's rooms, built bottom first, and the wires between
 * them.  It decides nothing.
 */
#include "config.h"
#include "env_event.h"
#include "founding.h"

struct node;

/* Inside the space (after space_enter()).  Says what is wrong itself. */
int node_new(struct node **ret, struct env_event *event, const struct config *config,
	     const struct founding_identity *identity);
/* End the loop, soon: a leader lets another lead first. */
void node_stop(struct node *n);
