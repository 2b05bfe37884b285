/*
 * The programs that this room has decided about, wherever they run: how many each node has, and
 * what is a job.
 *
 * Not kept for a successor of ssid: what a job that came here starts may then be placed
 * by itself.
 */
#include "placement_internal.h"

#include "placement_choose.h"
#include "process_proc.h"

enum { CANDIDATES_MAX = 1024, ANCESTORS_MAX = 4096 };

struct job {
	pid_t pid;
	node_id node;
	bool whole; /* what it starts stays with it */
	bool stays;
	bool busy; /* when last looked at; of those that are here: it does not wait, as shells do */
	uint64_t start_ticks; /* of the process, since PIDs come again */
	UT_hash_handle hh;
};

static struct job *find(struct placement *p, pid_t pid)
{
	struct job *j;

	HASH_FIND_INT(p->jobs, &pid, j);
	return j;
}

static void drop(struct placement *p, struct job *j)
{
	HASH_DEL(p->jobs, j);
	free(j);
}

/* False: it is over. */
static bool look(struct placement *p, struct job *j)
{
	struct process_record d;
	struct proc_stat s;

	if (proc_stat_read(space_proc_fd(p->n.space), j->pid, &s) < 0 ||
	    s.start_ticks != j->start_ticks || s.state == 'Z')
		return false;
	j->busy = j->node != rpc_self(p->n.rpc) || s.state == 'R' || s.state == 'D';
	return process_record(p->n.process, j->pid, &d) != 0 || d.state != PROCESS_ENDED;
}

void job_note(struct placement *p, pid_t pid, node_id node, bool whole)
{
	struct job *j = find(p, pid);
	struct proc_stat s;

	if (proc_stat_read(space_proc_fd(p->n.space), pid, &s) < 0)
		return;
	if (!j) {
		j = calloc(1, sizeof(*j));
		if (!j)
			return;
		j->pid = pid;
		HASH_ADD_INT(p->jobs, pid, j);
	}
	j->node = node;
	j->whole = whole;
	j->start_ticks = s.start_ticks; /* the shadow's is that of its process */
}

void job_stays(struct placement *p, pid_t pid)
{
	struct job *j;

	job_note(p, pid, rpc_self(p->n.rpc), false);
	j = find(p, pid);
	if (j)
		j->stays = true;
}

void job_forget(struct placement *p, pid_t pid)
{
	struct job *j = find(p, pid);

	if (j)
		drop(p, j);
}

bool job_covers(struct placement *p, pid_t pid)
{
	struct job *j = find(p, pid);
	struct proc_stat s;

	if (j && j->stays && look(p, j))
		return true;
	for (int i = 0; pid >= SPACE_PID_MIN && i < ANCESTORS_MAX; i++) {
		if (proc_stat_read(space_proc_fd(p->n.space), pid, &s) < 0)
			return false;
		j = find(p, pid);
		if (j && j->whole && j->start_ticks == s.start_ticks)
			return true;
		pid = s.ppid;
	}
	return false;
}

static void look_at_all(struct placement *p)
{
	struct job *j, *next;

	HASH_ITER (hh, p->jobs, j, next)
		if (!look(p, j))
			drop(p, j);
}

static uint32_t count(struct placement *p, node_id node)
{
	struct job *j, *next;
	uint32_t n = 0;

	HASH_ITER (hh, p->jobs, j, next)
		n += j->node == node && j->busy;
	return n;
}

static bool is_among(node_id node, const node_id *nodes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (nodes[i] == node)
			return true;
	return false;
}

static node_id place(struct placement *p, uint32_t n_here, const node_id *not, size_t n_not)
{
	const struct membership_view *view = membership_view(p->n.membership);
	node_id self = rpc_self(p->n.rpc);
	struct placement_candidate c[CANDIDATES_MAX];
	size_t n = 1;

	c[0].node = NODE_NONE;
	for (size_t i = 0; i < view->n_nodes; i++) {
		const struct membership_node *node = &view->nodes[i];
		size_t at = node->id == self ? 0 : n;

		if (node->state != MEMBER_UP || node->witness || at == CANDIDATES_MAX ||
		    (at && !membership_load_known(&node->load)) || is_among(node->id, not, n_not))
			continue;
		c[at] = (struct placement_candidate){ node->id, node->load.n_cpus,
						      node->load.running,
						      at ? count(p, node->id) : n_here };
		n += at > 0;
	}
	return c[0].node == self ? placement_choose(c, n) : self;
}

node_id job_place(struct placement *p)
{
	look_at_all(p);
	return place(p, count(p, rpc_self(p->n.rpc)), NULL, 0);
}

node_id placement_elsewhere(struct placement *p, uint32_t n_busy, const node_id *not, size_t n_not)
{
	node_id node;

	look_at_all(p);
	node = place(p, n_busy, not, n_not);
	return node == rpc_self(p->n.rpc) ? NODE_NONE : node;
}

bool placement_knows(struct placement *p, pid_t pid)
{
	return find(p, pid) || job_covers(p, pid);
}

void placement_note(struct placement *p, pid_t pid, node_id node)
{
	job_note(p, pid, node, true);
}

void job_fini(struct placement *p)
{
	struct job *j, *next;

	HASH_ITER (hh, p->jobs, j, next)
		drop(p, j);
}
