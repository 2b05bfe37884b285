#include "inventory_internal.h"

#include <elf.h>
#include <string.h>
#include <unistd.h>

/*
 * The GNU build id of an ELF file.  The file is a user's: every offset and size
 * is checked, nothing is believed, nothing is allocated (a child calls this).
 */

enum { SEGMENTS_MAX = 64, NOTE_MAX = 4096, BUILD_ID_MAX = 20 };

static bool get(int fd, void *to, size_t len, uint64_t offset)
{
	return offset <= INT64_MAX - len &&
	       pread(fd, to, len, (off_t)offset) == (ssize_t)len;
}

/* Whether the notes hold it; sizes are 32 bits, sums 64. */
static bool find_id(const uint8_t *notes, size_t len, char *ret)
{
	static const char hex[] = "0123456789abcdef";
	uint64_t at = 0;

	while (len - at >= sizeof(Elf32_Nhdr)) {
		uint64_t name, desc, next;
		Elf32_Nhdr n;

		memcpy(&n, notes + at, sizeof(n));
		name = at + sizeof(n);
		desc = name + (((uint64_t)n.n_namesz + 3) & ~3ull);
		next = desc + (((uint64_t)n.n_descsz + 3) & ~3ull);
		if (desc + n.n_descsz > len)
			return false;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 &&
		    !memcmp(notes + name, "GNU", 4) && n.n_descsz &&
		    n.n_descsz <= BUILD_ID_MAX) {
			for (uint32_t k = 0; k < n.n_descsz; k++) {
				*ret++ = hex[notes[desc + k] >> 4];
				*ret++ = hex[notes[desc + k] & 15];
			}
			*ret = '\0';
			return true;
		}
		if (next > len)
			return false;
		at = next;
	}
	return false;
}

/* The file offset and size of segment @k, if it holds notes. */
static bool note_segment(int fd, bool wide, uint64_t table, unsigned k,
			 uint64_t *ret_at, uint64_t *ret_len)
{
	if (wide) {
		Elf64_Phdr p;

		if (table > INT64_MAX - 65536 ||
		    !get(fd, &p, sizeof(p), table + k * sizeof(p)))
			return false;
		*ret_at = p.p_offset, *ret_len = p.p_filesz;
		return p.p_type == PT_NOTE;
	} else {
		Elf32_Phdr p;

		if (!get(fd, &p, sizeof(p), table + k * sizeof(p)))
			return false;
		*ret_at = p.p_offset, *ret_len = p.p_filesz;
		return p.p_type == PT_NOTE;
	}
}

void elf_build_id(int fd, char ret[static 41])
{
	uint8_t notes[NOTE_MAX], ident[EI_NIDENT];
	uint64_t table, at, len;
	unsigned n;
	bool wide;

	ret[0] = '\0';
	if (!get(fd, ident, sizeof(ident), 0) || memcmp(ident, ELFMAG, SELFMAG))
		return;
	wide = ident[EI_CLASS] == ELFCLASS64;
	if (wide) {
		Elf64_Ehdr h;

		if (!get(fd, &h, sizeof(h), 0) || h.e_phentsize != sizeof(Elf64_Phdr))
			return;
		table = h.e_phoff, n = h.e_phnum;
	} else {
		Elf32_Ehdr h;

		if (!get(fd, &h, sizeof(h), 0) || h.e_phentsize != sizeof(Elf32_Phdr))
			return;
		table = h.e_phoff, n = h.e_phnum;
	}
	for (unsigned k = 0; k < n && k < SEGMENTS_MAX; k++) {
		if (!note_segment(fd, wide, table, k, &at, &len) ||
		    len > sizeof(notes) || !get(fd, notes, len, at))
			continue;
		if (find_id(notes, len, ret))
			return;
	}
}
