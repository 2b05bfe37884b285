/*
 * Restores in place that fail, at each stage, turn back into the fallback
 * program: the same PID, with one descriptor, and the parent sees nothing.
 * Afterwards a good restore works.  SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Fails without 0003-restore-in-place.
 */
#include "family.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOOD IMAGES ".good"

/* What goes wrong: files of the image, or the client at a notification */
struct failure {
	const char *what;
	const char *files; /* a pattern */
	bool truncate;	   /* else it is missing */
	const char *refuse_at;
	const char *hang_up_at; /* "" is before anything else */
};

static const struct failure failures[] = {
	{.what = "no inventory", .files = IMAGES "/inventory.img"},
	{.what = "no process tree", .files = IMAGES "/pstree.img"},
	{.what = "no registers", .files = IMAGES "/core-*.img"},
	{.what = "no memory map", .files = IMAGES "/mm-*.img"},
	{.what = "half of the memory",
	 .files = IMAGES "/pages-*.img",
	 .truncate = true},
	{.what = "half of the file table",
	 .files = IMAGES "/files.img",
	 .truncate = true},
	{.what = "refused before", .refuse_at = "pre-restore"},
	{.what = "refused after", .refuse_at = "post-restore"},
	{.what = "the client is gone at once", .hang_up_at = ""},
	{.what = "the client is gone before", .hang_up_at = "pre-restore"},
	{.what = "the client is gone after", .hang_up_at = "post-restore"},
};

static void spoil(const struct failure *w)
{
	struct stat st;
	glob_t g;
	size_t i;

	if (!w->files)
		return;
	if (glob(w->files, 0, NULL, &g))
		fail("no %s", w->files);
	for (i = 0; i < g.gl_pathc; i++)
		if (stat(g.gl_pathv[i], &st) ||
		    (w->truncate ? truncate(g.gl_pathv[i], st.st_size / 2)
				 : unlink(g.gl_pathv[i])))
			fail("%s: %m", g.gl_pathv[i]);
	globfree(&g);
}

static bool on_notify(struct swrk *s, const CriuNotify *n, void *owner)
{
	const struct failure *w = owner;

	if (w->hang_up_at && !strcmp(n->script, w->hang_up_at)) {
		close(s->fd);
		s->fd = -1;
	}
	return !w->refuse_at || strcmp(n->script, w->refuse_at);
}

static void fail_once(struct family *f, const struct failure *w)
{
	struct report r;
	struct swrk s;

	printf("  %s\n", w->what);
	family_leave(f);
	family_expect_shadow(f, &r);
	check(!r.back);
	if (system("cp -a " IMAGES " " GOOD))
		fail("can't save the images");
	spoil(w);
	family_fork(f, 10000);
	family_signal(f);
	family_come(f, &s);
	if (w->hang_up_at && !w->hang_up_at[0]) {
		close(s.fd);
		s.fd = -1;
	} else if (swrk_answer(&s, on_notify, (void *)w, NULL)) {
		fail("the restore does not fail");
	}
	family_expect_shadow(f, &r);
	check(r.back);
	if (r.n_fds != 1)
		fail("the fallback program has %d descriptors", r.n_fds);
	check(!r.coordinator || s.events[0]);
	swrk_end(&s);
	family_expect_unseen(f);
}

static void fail_all(uid_t uid)
{
	struct family f;
	struct report r;
	struct swrk s;
	size_t i;

	printf("uid %d\n", uid);
	family_start(&f, uid);
	for (i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
		fail_once(&f, &failures[i]);
		if (system("rm -r " IMAGES " && mv " GOOD " " IMAGES))
			fail("can't take back the images");
		family_come(&f, &s);
		if (!swrk_answer(&s, NULL, NULL, NULL)) {
			show_log("restore.log");
			fail("the good restore fails");
		}
		swrk_end(&s);
		family_expect_p(&f);
		family_expect_unseen(&f);
	}
	family_leave(&f);
	family_expect_shadow(&f, &r);
	family_end(&f);
}

int main(int argc, char **argv)
{
	family_shadow_main(argc, argv);
	test_enter(argc, argv);
	fail_all(0);
	fail_all(1000);
	return 0;
}
