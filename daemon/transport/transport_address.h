#pragma once
/* "10.0.0.1:7777", "[::1]:7777": numbers only, nobody is asked. */
#include <stdbool.h>
#include <sys/socket.h>

/* -EINVAL: it is none.  Without a port, or with 0, it is only good to @listen at. */
int transport_address_parse(const char *text, bool listen, struct sockaddr_storage *ret,
			    socklen_t *ret_len);
