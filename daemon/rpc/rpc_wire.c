/*
 * Happy path: a message is packed into one allocation, bulk bytes behind it;
 * what a peer sent is unpacked, used during one call and freed.
 *
 * Failure modes: bytes that are no such message, or that would grow to more
 * than a fixed multiple of their length (a megabyte of empty repeated messages
 * makes fifty of structs), unpack to NULL.
 */
#include "rpc_internal.h"

#include "envelope.pb-c.h"
#include "err.h"

#include <string.h>

enum {
	GROWTH = 24, /* bytes of structs for one byte on the wire */
	GROWTH_BASE = 16 << 10,
};

struct budget {
	size_t left;
};

static void *budget_alloc(void *data, size_t size)
{
	struct budget *b = data;

	if (size > b->left)
		return NULL;
	b->left -= size;
	return malloc(size);
}

static void budget_free(void *data, void *p)
{
	free(p);
}

ProtobufCMessage *rpc_unpack(const ProtobufCMessageDescriptor *type, struct iovec bytes)
{
	struct budget budget = { GROWTH_BASE + GROWTH * bytes.iov_len };
	ProtobufCAllocator allocator = { budget_alloc, budget_free, &budget };

	if (bytes.iov_len > TRANSPORT_MESSAGE_MAX)
		return NULL;
	return protobuf_c_message_unpack(type, &allocator, bytes.iov_len,
					 bytes.iov_len ? bytes.iov_base : (uint8_t *)"");
}

void rpc_unpacked_free(ProtobufCMessage *message)
{
	ProtobufCAllocator allocator = { budget_alloc, budget_free, NULL };

	if (message)
		protobuf_c_message_free_unpacked(message, &allocator);
}

int rpc_pack(const ProtobufCMessage *message, struct iovec bulk, uint8_t **ret_data,
	     size_t *ret_message_len)
{
	size_t len = protobuf_c_message_get_packed_size(message);
	uint8_t *data;

	if (len > TRANSPORT_MESSAGE_MAX || bulk.iov_len > TRANSPORT_BULK_MAX)
		return err_origin(-EMSGSIZE);
	data = malloc(len + bulk.iov_len + 1);
	if (!data)
		return err_origin(-ENOMEM);
	(void)protobuf_c_message_pack(message, data);
	if (bulk.iov_len)
		memcpy(data + len, bulk.iov_base, bulk.iov_len);
	*ret_data = data;
	*ret_message_len = len;
	return 0;
}

size_t rpc_failure_pack(enum rpc_status status, const char *text,
			uint8_t ret[static RPC_TEXT_MAX + 32])
{
	Ssi__Envelope__Failure failure = SSI__ENVELOPE__FAILURE__INIT;
	char line[RPC_TEXT_MAX];

	failure.status = status;
	failure.text = strncpy(line, text, sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	return ssi__envelope__failure__pack(&failure, ret);
}

int rpc_failure_unpack(struct iovec bytes, enum rpc_status *ret_status,
		       char ret_text[static RPC_TEXT_MAX])
{
	_cleanup_(rpc_unpacked_freep) ProtobufCMessage *message = NULL;
	const Ssi__Envelope__Failure *failure;
	size_t i;

	message = rpc_unpack(&ssi__envelope__failure__descriptor, bytes);
	if (!message)
		return err_origin(-EBADMSG);
	failure = (const Ssi__Envelope__Failure *)message;
	*ret_status = failure->status > RPC_OK && failure->status <= RPC_STALE ?
			      failure->status :
			      RPC_FAILED;
	/* It goes to terminals and logs: one line, no control characters. */
	for (i = 0; i < RPC_TEXT_MAX - 1 && failure->text[i]; i++) {
		unsigned char c = failure->text[i];

		ret_text[i] = c < ' ' || c == 0x7f ? '?' : c;
	}
	ret_text[i] = '\0';
	return 0;
}
