/*
 * After every step: one live copy of each process in the whole cluster, none on a machine that
 * a view has out; it is the newest that there ever was, unless that one is lost with its machine
 * or its lease; the last copy of a process is killed by no room, unless its machine was out of
 * the cluster.  (The kernel looks after most of that, see sim_kernel.h.)  When everything has
 * healed: every process that did not end stands somewhere, live, its home knows where, and has a
 * shadow of it; no shadow and no record is left of the others; nothing is frozen, no move is in a
 * journal, no signal was lost.
 */
#include "sim_moves.h"

#include "migration_journal.h"

#include <inttypes.h>

static struct machine *machine_of(struct sim *s, node_id id)
{
	for (unsigned i = 1; i <= N_MACHINES; i++)
		if (s->machines[i].id == id)
			return &s->machines[i];
	return NULL;
}

static void lose(struct sim_machine *k)
{
	struct sim_process *p;

	LIST_FOREACH(p, &k->processes, in)
		if (p->soul)
			p->soul->was_lost = true;
}

void sim_moves_on_view(struct sim *s, const struct membership_view *v)
{
	if (v->epoch <= s->newest)
		return;
	s->newest = v->epoch;
	for (size_t i = 0; i < v->n_nodes; i++) {
		const struct machine *of = machine_of(s, v->nodes[i].id);
		struct sim_machine *k = of ? &s->kernel.machines[of->slot] : NULL;
		bool was = k && k->out;

		if (!k)
			continue;
		s->machines[of->slot].state = v->nodes[i].state;
		k->out = !membership_state_is_up(v->nodes[i].state);
		k->n_outs += k->out && !was;
		if (k->out)
			lose(k);
	}
}

void sim_moves_check(struct sim *s)
{
	for (unsigned i = 1; i <= N_MACHINES; i++) {
		struct sim_process *p;

		if (!s->kernel.machines[i].out)
			continue;
		LIST_FOREACH(p, &s->kernel.machines[i].processes, in)
			world_check(s->w, !p->live,
				    "process %d runs on machine %u, which is out", p->pid, i);
		lose(&s->kernel.machines[i]);
	}
}

/* In the end. */

static void check_machine(struct machine *m)
{
	struct sim_machine *k = &m->sim->kernel.machines[m->slot];
	struct world *w = m->sim->w;
	struct migration_journal *j;
	struct migration_entry e;
	struct sim_process *p;

	world_check(w, m->state == MEMBER_UP, "node %u is %d", m->id, m->state);
	world_check(w, m->membership && membership_lease_held(m->membership),
		    "node %u has no lease", m->id);
	world_check(w, !k->frozen_at, "the space of node %u is frozen", m->id);
	LIST_FOREACH(p, &k->processes, in) {
		world_check(w, !p->group || !p->group->frozen,
			    "process %d is frozen on node %u in %s", p->pid, m->id,
			    p->group->name);
		world_check(w, !p->restoring, "process %d is half-made on node %u", p->pid,
			    m->id);
	}
	world_check(w, migration_journal_new(&j, m->space) == 0, "no journal");
	for (size_t i = 0; migration_journal_entry(j, i, &e); i++)
		world_check(w,
			    e.side == MIGRATION_TARGET && e.step == MIGRATION_STEP_COMMITTED,
			    "node %u has a move of %d in its journal: side %u, step %u", m->id,
			    e.root, e.side, e.step);
	migration_journal_free(j);
}

static void check_living(struct sim *s, struct sim_soul *soul)
{
	struct machine *home = &s->machines[soul->home];
	struct sim_process *p, *shadow;
	struct process_record record;
	struct machine *place;

	world_check(s->w, sim_soul_copies(soul, &p) == 1 && p->live,
		    "process %d is nowhere, or does not run", soul->pid);
	place = &s->machines[p->machine->slot];
	world_check(s->w, process_record(place->process, soul->pid, &record) == 0 &&
				  record.place == place->id && !record.moving &&
				  record.home == home->id,
		    "node %u does not know that it has process %d", place->id, soul->pid);
	world_check(s->w, process_record(home->process, soul->pid, &record) == 0 &&
				  record.place == place->id,
		    "node %u, home of process %d, does not know that it is on node %u",
		    home->id, soul->pid, place->id);
	shadow = sim_find(&s->kernel.machines[soul->home], soul->pid);
	world_check(s->w, place == home || (shadow && shadow->shadow && !shadow->zombie),
		    "process %d is on node %u, and its home has no shadow of it", soul->pid,
		    place->id);
	world_check(s->w,
		    soul->went_back ||
			    ((soul->repeats || soul->n_signals + p->pending <= soul->n_sent) &&
			     soul->n_signals + p->pending >= soul->n_surely),
		    "process %d was sent %u signals, %u of them surely, and took %u",
		    soul->pid, soul->n_sent, soul->n_surely, soul->n_signals);
}

/*
 * What is known not to hold: it moved on and ended, and its last machine lost its power before
 * its home could be told of either.  The one before says rightly that its own space is as old.
 */
static bool is_untold(struct sim *s, struct sim_soul *soul)
{
	struct machine *home = &s->machines[soul->home], *last = &s->machines[soul->died_on->slot];
	struct process_record record;

	return soul->died_on->n_cuts > soul->n_cuts &&
	       process_record(home->process, soul->pid, &record) == 0 &&
	       record.state == PROCESS_AWAY && record.place != last->id;
}

static void check_dead(struct sim *s, struct sim_soul *soul)
{
	struct sim_soul *same;

	LIST_FOREACH(same, &s->kernel.souls, in)
		if (same->pid == soul->pid && same != soul)
			return; /* its number was given again */
	if (is_untold(s, soul))
		return;
	for (unsigned i = 1; i <= N_MACHINES; i++) {
		struct machine *m = &s->machines[i];
		struct process_record record;

		world_check(s->w, !sim_find(&s->kernel.machines[i], soul->pid) ||
					  sim_find(&s->kernel.machines[i], soul->pid)->zombie,
			    "process %d has ended (%d), and node %u has %s of it", soul->pid,
			    soul->end, m->id,
			    sim_find(&s->kernel.machines[i], soul->pid)->shadow ? "a shadow" :
										   "a copy");
		world_check(s->w, process_record(m->process, soul->pid, &record) != 0 ||
					  record.state == PROCESS_ENDED,
			    "process %d has ended (%d), and node %u has a record of it, %d",
			    soul->pid, soul->end, m->id, record.state);
	}
}

void sim_moves_check_healed(struct sim *s)
{
	struct sim_soul *soul;

	for (unsigned i = 1; i <= N_MACHINES; i++)
		check_machine(&s->machines[i]);
	LIST_FOREACH(soul, &s->kernel.souls, in)
		if (soul->end == SIM_LIVES)
			check_living(s, soul);
		else
			check_dead(s, soul);
}
