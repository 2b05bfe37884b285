/* Where there is no libFuzzer: files named on the command line, or made-up inputs. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX = 4096, N_INPUTS = 4000 };

static uint64_t state = 1;

static uint32_t draw(uint32_t n)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(state >> 33) % n;
}

/* Something like protobuf: small field numbers, plausible wire types. */
static size_t message(uint8_t *p, size_t room)
{
	size_t n = 0;

	while (n + 12 < room && draw(8)) {
		uint8_t len = (uint8_t)draw(10);

		p[n++] = (uint8_t)((1 + draw(9)) << 3 | (uint8_t[]){ 0, 0, 1, 2, 2, 5 }[draw(6)]);
		if ((p[n - 1] & 7) == 2)
			p[n++] = len;
		for (uint8_t i = 0; i < len; i++)
			p[n++] = (uint8_t)(draw(3) ? draw(128) : draw(256));
	}
	return n;
}

static size_t make(uint8_t *p)
{
	size_t n = 0;

	p[n++] = (uint8_t)draw(5);
	while (n + 300 < MAX && draw(12)) {
		uint8_t *r = p + n;
		size_t len = message(r + 7, 256);

		r[0] = (uint8_t)(draw(20) ? 1 + draw(4) : draw(256));
		r[1] = (uint8_t)(draw(10) ? 1 : draw(8));
		r[2] = (uint8_t)(1 + draw(5));
		r[3] = (uint8_t)draw(6);
		r[4] = (uint8_t)draw(5);
		r[5] = (uint8_t)len;
		r[6] = (uint8_t)(len >> 8);
		n += 7 + len;
	}
	return n;
}

static void run_file(const char *path)
{
	static uint8_t data[1 << 20];
	FILE *f = fopen(path, "rb");
	size_t n;

	if (!f) {
		perror(path);
		exit(1);
	}
	n = fread(data, 1, sizeof(data), f);
	fclose(f);
	(void)LLVMFuzzerTestOneInput(data, n);
}

int main(int argc, char **argv)
{
	uint8_t *input;

	for (int i = 1; i < argc; i++)
		run_file(argv[i]);
	for (unsigned i = 0; argc == 1 && i < N_INPUTS; i++) {
		static uint8_t made[MAX];
		size_t n = make(made);

		/* Exactly as long as it says, so that a read past its end is seen. */
		input = malloc(n);
		if (!input)
			return 1;
		memcpy(input, made, n);
		(void)LLVMFuzzerTestOneInput(input, n);
		free(input);
	}
	return 0;
}
