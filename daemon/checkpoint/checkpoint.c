/*
 * The asker's side: where is it, ask that node, pass its word on.  Saving and
 * restarting themselves are in checkpoint_save.c and checkpoint_restart.c.
 */
#include "checkpoint_internal.h"

#include "cleanup.h"
#include "err.h"
#include "image_internal.h"
#include "log.h"
#include "space_group.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

void checkpoint_outcome_set(struct checkpoint_outcome *o, enum rpc_status status,
			    const char *format, va_list ap)
{
	if (o->status != RPC_OK)
		return;
	o->status = status;
	vsnprintf(o->text, sizeof(o->text), format, ap);
}

struct checkpoint_ask *checkpoint_ask_new(struct checkpoint_room *c, void *owner)
{
	struct checkpoint_ask *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->room = c;
	a->owner = owner;
	LIST_INSERT_HEAD(&c->asks, a, entry);
	return a;
}

void checkpoint_ask_free(struct checkpoint_ask *a)
{
	LIST_REMOVE(a, entry);
	free(a->directory);
	free(a->description);
	free(a->name);
	free(a);
}

void checkpoint_forget(struct checkpoint_room *c, void *owner)
{
	struct checkpoint_ask *a;

	LIST_FOREACH(a, &c->asks, entry)
		if (a->owner == owner)
			a->owner = NULL;
}

static char *directory_or_default(const struct checkpoint_room *c, const char *directory)
{
	return strdup(directory[0] ? directory : c->config.directory);
}

/* Saving. */

static void save_end(struct checkpoint_ask *a, const struct checkpoint_saved *result)
{
	if (a->owner)
		a->done.saved(a->owner, result);
	checkpoint_ask_free(a);
}

static void save_fail(struct checkpoint_ask *a, enum rpc_status status, const char *text)
{
	struct checkpoint_saved result = { .status = status, .text = text };

	save_end(a, &result);
}

static void on_saved(void *owner, const struct rpc_result *r)
{
	const Ssi__Checkpoint__SaveReply *reply = (const void *)r->reply;
	struct checkpoint_ask *a = owner;
	struct checkpoint_saved result = { .status = r->status, .text = r->text,
					   .directory = a->directory };
	char text[160];

	if (r->status == RPC_OK) {
		result.name = reply->name;
		result.bytes = reply->bytes;
		result.frozen = reply->frozen_ns;
	} else if (!r->answered && (r->status == RPC_DOWN || r->status == RPC_TIMEOUT)) {
		(void)snprintf(text, sizeof(text),
			       "ssid of its node went away while process %d was being saved: "
			       "ssi-checkpoint --list tells whether it was; if not, it runs on",
			       a->save.pid);
		result.text = text;
	}
	save_end(a, &result);
}

static void on_where(void *owner, enum rpc_status status, const char *text, node_id place,
		     uid_t uid, uint32_t generation)
{
	struct checkpoint_ask *a = owner;
	Ssi__Checkpoint__SaveRequest q = SSI__CHECKPOINT__SAVE_REQUEST__INIT;
	Ssi__Checkpoint__Caller caller;
	uint32_t groups[64];

	if (status != RPC_OK)
		return save_fail(a, status, text);
	checkpoint_caller_format(&a->save.caller, &caller, groups);
	q.pid = a->save.pid;
	q.caller = &caller;
	q.kill = a->save.kill;
	q.directory.data = (uint8_t *)a->directory;
	q.directory.len = strlen(a->directory);
	q.description = a->description;
	q.timeout_ns = a->save.timeout;
	if (rpc_call(a->room->n.rpc, place, CHECKPOINT_SAVE, &q.base, RPC_NO_BULK,
		     a->save.timeout + 15 * NSEC_PER_SEC, on_saved, a, NULL) != 0)
		save_fail(a, RPC_FAILED, "out of memory");
}

int checkpoint_save(struct checkpoint_room *c, const struct checkpoint_save *request,
		    checkpoint_progress_cb progress, checkpoint_saved_cb done, void *owner)
{
	struct checkpoint_ask *a = checkpoint_ask_new(c, owner);

	if (!a)
		return err_origin(-ENOMEM);
	a->save = *request;
	a->done.saved = done;
	a->directory = directory_or_default(c, request->directory);
	a->description = strdup(request->description);
	if (!a->directory || !a->description ||
	    process_where(c->n.process, request->pid, on_where, a) != 0) {
		checkpoint_ask_free(a);
		return err_origin(-ENOMEM);
	}
	return 0;
}

/* Restarting. */

static void restart_end(struct checkpoint_ask *a, enum rpc_status status, const char *text,
			pid_t app)
{
	/* Streams to a program that is not there, or whose tool is gone, are closed. */
	if (status != RPC_OK || !a->owner)
		for (size_t i = 0; i < 3; i++)
			if (a->streams[i])
				(void)stream_close(a->room->n.stream, a->streams[i],
						   i == 0 ? STREAM_READER : STREAM_WRITER);
	if (a->owner)
		a->done.restarted(a->owner, status, text, app, a->restart.target);
	checkpoint_ask_free(a);
}

static void on_restarted(void *owner, const struct rpc_result *r)
{
	const Ssi__Checkpoint__RestartReply *reply = (const void *)r->reply;

	restart_end(owner, r->status, r->text, r->status == RPC_OK ? reply->app : 0);
}

/* The near ends of its standard streams. */
static int open_streams(struct checkpoint_ask *a, const int stdio[static 3])
{
	for (size_t i = 0; i < 3; i++) {
		stream_id id;
		int fd, r;

		if (stdio[i] < 0)
			continue;
		fd = dup(stdio[i]);
		if (fd < 0)
			return err_origin(-errno);
		id = stream_new_id(a->room->n.stream);
		r = stream_open(a->room->n.stream, id, i == 0 ? STREAM_READER : STREAM_WRITER,
				a->restart.target, fd, 0, NULL, 0);
		if (r != 0)
			return err_fold(r);
		a->streams[i] = id;
	}
	return 0;
}

int checkpoint_restart(struct checkpoint_room *c, const struct checkpoint_restart *request,
		       checkpoint_progress_cb progress, checkpoint_restarted_cb done, void *owner)
{
	Ssi__Checkpoint__RestartRequest q = SSI__CHECKPOINT__RESTART_REQUEST__INIT;
	struct checkpoint_ask *a = checkpoint_ask_new(c, owner);
	Ssi__Checkpoint__Caller caller;
	uint32_t groups[64];
	int r;

	if (!a)
		return err_origin(-ENOMEM);
	a->restart = *request;
	a->done.restarted = done;
	a->directory = directory_or_default(c, request->directory);
	r = a->directory ? open_streams(a, request->stdio) : err_origin(-ENOMEM);
	if (r == 0) {
		checkpoint_caller_format(&request->caller, &caller, groups);
		q.name = (char *)request->name;
		q.directory.data = (uint8_t *)a->directory;
		q.directory.len = strlen(a->directory);
		q.caller = &caller;
		q.timeout_ns = request->timeout;
		q.streams = a->streams;
		q.n_streams = N_ELEMENTS(a->streams);
		r = err_fold(rpc_call(c->n.rpc, request->target, CHECKPOINT_RESTART, &q.base,
				      RPC_NO_BULK, request->timeout + 15 * NSEC_PER_SEC,
				      on_restarted, a, NULL));
	}
	if (r < 0) {
		a->owner = NULL;
		restart_end(a, RPC_FAILED, "", 0);
	}
	return r;
}

/* Browsing: the directory is the same from every node, so it is done here. */

enum { ENTRIES_MAX = 10000 };

struct browsed {
	char *name;
	struct buf manifest;
};

struct checkpoint_browsing {
	struct checkpoint_ask *ask;
	struct copy *copy;
	enum checkpoint_what what;
	struct browsed *entries;
	size_t n_entries;
	struct image_store *images; /* INSPECT: to check them */
	struct env_work work;
	struct manifest *manifest;
	char *problem;
};

static void browsing_free(struct checkpoint_browsing *b)
{
	for (size_t i = 0; i < b->n_entries; i++) {
		free(b->entries[i].name);
		buf_fini(&b->entries[i].manifest);
	}
	free(b->entries);
	image_store_free(b->images);
	manifest_free(b->manifest);
	free(b->problem);
	checkpoint_ask_free(b->ask);
	free(b);
}

static int on_browsed_name(void *owner, const char *name)
{
	struct checkpoint_browsing *b = owner;
	struct browsed *p;

	if (b->n_entries == ENTRIES_MAX)
		return err_origin(-ENOSPC);
	p = reallocarray(b->entries, b->n_entries + 1, sizeof(*p));
	if (!p)
		return err_origin(-ENOMEM);
	b->entries = p;
	p[b->n_entries] = (struct browsed){ .name = strdup(name) };
	if (!p[b->n_entries].name)
		return err_origin(-ENOMEM);
	b->n_entries++;
	return 0;
}

static int on_browsed_piece(void *owner, const char *file, const void *data, size_t len, bool last)
{
	struct checkpoint_browsing *b = owner;
	struct browsed *e = b->n_entries ? &b->entries[b->n_entries - 1] : NULL;
	struct image_sink sink;

	if (!e)
		return err_origin(-EBADMSG);
	if (strcmp(file, "manifest") == 0)
		return e->manifest.len + len > MANIFEST_TEXT_MAX
			       ? err_origin(-EBADMSG)
			       : buf_append(&e->manifest, data, len);
	if (!b->images)
		return 0;
	sink = image_store_sink(b->images);
	return last ? sink.close(sink.owner, file) : sink.write(sink.owner, file, data, len);
}

/* One of the list, with what is wrong with it. */
static struct manifest *parse_entry(const struct checkpoint_browsing *b, const struct browsed *e,
				    struct checkpoint_entry *ret)
{
	struct manifest *m = NULL;

	*ret = (struct checkpoint_entry){ .name = e->name };
	if (manifest_parse(&m, (const char *)e->manifest.data, e->manifest.len,
			   b->ask->room->config.seal_key, &ret->problem) != 0)
		return NULL;
	ret->manifest = m;
	if (strcmp(m->name, e->name) != 0)
		ret->problem = "renamed since it was made";
	return m;
}

static void answer_list(struct checkpoint_browsing *b)
{
	struct checkpoint_entry *entries = calloc(b->n_entries + 1, sizeof(*entries));
	struct manifest **parsed = calloc(b->n_entries + 1, sizeof(*parsed));

	if (entries && parsed) {
		for (size_t i = 0; i < b->n_entries; i++)
			parsed[i] = parse_entry(b, &b->entries[i], &entries[i]);
		b->ask->done.listed(b->ask->owner, RPC_OK, "", entries, b->n_entries);
		for (size_t i = 0; i < b->n_entries; i++)
			manifest_free(parsed[i]);
	} else {
		b->ask->done.listed(b->ask->owner, RPC_FAILED, "out of memory", NULL, 0);
	}
	free(entries);
	free(parsed);
}

static void on_inspect_work(struct env_work *work)
{
	struct checkpoint_browsing *b = container_of(work, struct checkpoint_browsing, work);

	if (manifest_check_images(b->manifest, b->images, &b->problem) < 0)
		b->problem = strdup("its images cannot be read");
}

static void on_inspected(struct env_work *work)
{
	struct checkpoint_browsing *b = container_of(work, struct checkpoint_browsing, work);
	struct browsed *e = &b->entries[0];
	struct checkpoint_entry entry;
	_cleanup_free_ char *text = NULL;
	struct manifest *m;

	if (b->ask->owner) {
		m = parse_entry(b, e, &entry);
		text = strndup((const char *)e->manifest.data, e->manifest.len);
		entry.text = text;
		if (!entry.problem)
			entry.problem = b->problem;
		b->ask->done.listed(b->ask->owner, RPC_OK, "", &entry, 1);
		manifest_free(m);
	}
	browsing_free(b);
}

static void on_browsed(void *owner, enum rpc_status status, const char *text)
{
	struct checkpoint_browsing *b = owner;
	const char *problem;

	b->copy = NULL;
	if (!b->ask->owner)
		return browsing_free(b);
	if (status != RPC_OK) {
		b->ask->done.listed(b->ask->owner, status, text, NULL, 0);
		return browsing_free(b);
	}
	if (b->what != CHECKPOINT_INSPECT || b->n_entries != 1) {
		answer_list(b);
		return browsing_free(b);
	}
	b->work = (struct env_work){ .work = on_inspect_work, .done = on_inspected };
	if (manifest_parse(&b->manifest, (const char *)b->entries[0].manifest.data,
			   b->entries[0].manifest.len, b->ask->room->config.seal_key,
			   &problem) == 0 &&
	    env_work(b->ask->room->n.env, &b->work) == 0)
		return;
	on_inspected(&b->work);
}

int checkpoint_browse(struct checkpoint_room *c, enum checkpoint_what what, const char *name,
		      const char *directory, const struct process_caller *caller,
		      checkpoint_listed_cb done, void *owner)
{
	static const struct copy_events events = { on_browsed_name, on_browsed_piece, on_browsed };
	static const enum copy_verb verbs[] = {
		[CHECKPOINT_LIST] = COPY_LIST, [CHECKPOINT_INSPECT] = COPY_IN,
		[CHECKPOINT_REMOVE] = COPY_REMOVE,
	};
	struct checkpoint_browsing *b = calloc(1, sizeof(*b));
	struct copy_spec spec = { .verb = verbs[what], .caller = caller, .name = name,
				  .images_fd = -1, .timeout = 60 * NSEC_PER_SEC };
	char private_name[64];
	int r;

	if (!b)
		return err_origin(-ENOMEM);
	b->what = what;
	b->ask = checkpoint_ask_new(c, owner);
	if (!b->ask) {
		free(b);
		return err_origin(-ENOMEM);
	}
	b->ask->done.listed = done;
	b->ask->directory = directory_or_default(c, directory);
	spec.directory = b->ask->directory;
	spec.make_directory = spec.directory && strcmp(spec.directory, c->config.directory) == 0;
	snprintf(private_name, sizeof(private_name), "inspect.%u", c->next_number++);
	r = spec.directory ? 0 : err_origin(-ENOMEM);
	if (r == 0 && what == CHECKPOINT_INSPECT)
		r = image_store_new(&b->images, c->config.private_dir_fd, private_name,
				    c->config.image_max_bytes);
	if (r == 0)
		r = copy_start(&b->copy, c->n.env, c->n.space, c->config.libexec_dir, &spec, &events,
			       b);
	if (r != 0)
		browsing_free(b);
	return err_fold(r);
}

/* What a predecessor left half-way: a tree that was being saved goes on, one that was being
 * revived is not, and private directories are nobody's any more. */

static int on_left_group(struct space *space, const char *name, bool kill)
{
	struct space_group *g;
	int r = space_group_open(space, name, &g);

	if (r != 0)
		return err_fold(r);
	r = kill ? space_group_kill(g, 5 * NSEC_PER_SEC) : space_group_thaw(g);
	space_group_close(g);
	log_notice("%s: a predecessor's work is undone", name);
	return err_fold(r);
}

static int on_left_saving(void *owner, const char *name)
{
	return on_left_group(owner, name, false);
}

static int on_left_reviving(void *owner, const char *name)
{
	return on_left_group(owner, name, true);
}

static void sweep_directories(int private_dir_fd)
{
	static const char *const prefixes[] = { "save.", "revive.", "inspect.", "arrive." };
	int copy = openat(private_dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	while (d && (e = readdir(d)))
		for (size_t i = 0; i < N_ELEMENTS(prefixes); i++)
			if (strncmp(e->d_name, prefixes[i], strlen(prefixes[i])) == 0)
				(void)image_directory_remove(private_dir_fd, e->d_name);
	if (d)
		closedir(d);
}

static int sweep(struct checkpoint_room *c)
{
	int r = space_group_each(c->n.space, "save.", on_left_saving, c->n.space);

	if (r == 0)
		r = space_group_each(c->n.space, "revive.", on_left_reviving, c->n.space);
	sweep_directories(c->config.private_dir_fd);
	return r;
}

int checkpoint_room_new(struct checkpoint_room **ret, const struct checkpoint_neighbours *n,
			const struct checkpoint_config *config)
{
	struct checkpoint_room *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_origin(-ENOMEM);
	c->n = *n;
	c->config = *config;
	c->pipes = (struct tree_pipes_context){ n->stream, n->console, rpc_self(n->rpc) };
	c->next_number = (uint32_t)env_random_u64(n->env);
	LIST_INIT(&c->asks);
	r = sweep(c);
	if (r == 0)
		r = rpc_register(n->rpc, checkpoint_methods, c);
	if (r < 0) {
		free(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct checkpoint_room *checkpoint_room_free(struct checkpoint_room *c)
{
	if (!c)
		return NULL;
	while (!LIST_EMPTY(&c->asks))
		checkpoint_ask_free(LIST_FIRST(&c->asks));
	free(c);
	return NULL;
}
