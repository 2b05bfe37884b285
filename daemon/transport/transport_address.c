#include "transport_address.h"

#include "err.h"

#include <netdb.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Split into @host and @port, both of @size; -EINVAL when they do not fit or are odd.
 */
static int split(const char *text, char *host, char *port, size_t size)
{
	size_t skip = text[0] == '[', len;
	const char *after;

	len = strcspn(text + skip, skip ? "]" : ":");
	after = text + skip + len;
	if (len >= size || (skip && *after++ != ']'))
		return err_origin(-EINVAL);
	memcpy(host, text + skip, len);
	host[len] = '\0';
	if (*after == '\0')
		after = ":0";
	if (*after != ':' || after[1] == '\0' || strlen(after + 1) >= size)
		return err_origin(-EINVAL);
	strcpy(port, after + 1);
	return 0;
}

/* < 0: none.  getaddrinfo() would take 70000. */
static long port_of(const char *text)
{
	char *end;
	long port;

	if (text[0] < '0' || text[0] > '9')
		return -1;
	port = strtol(text, &end, 10);
	return *end || port > UINT16_MAX ? -1 : port;
}

int transport_address_parse(const char *text, bool listen, struct sockaddr_storage *ret,
			    socklen_t *ret_len)
{
	struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
		.ai_socktype = SOCK_STREAM,
	};
	char host[64], port[64];
	struct addrinfo *found;
	int r;

	r = split(text, host, port, sizeof(host));
	if (r < 0)
		return r;
	if (port_of(port) < !listen || !host[0] ||
	    getaddrinfo(host, port, &hints, &found) != 0)
		return err_origin(-EINVAL);
	memcpy(ret, found->ai_addr, found->ai_addrlen);
	*ret_len = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}
