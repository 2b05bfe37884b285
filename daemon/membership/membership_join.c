/*
 * The messages of joining, protobuf <-> native.
 *
 * Failure modes: what comes from a joiner or a founder is bounded and checked
 * here, and nothing of it is believed but the secret (by the leader) and the
 * fingerprint that transport has compared (by the joiner).
 */
#include "membership_token.h"

#include "cleanup.h"
#include "err.h"
#include "membership.pb-c.h"
#include "membership_map.h"

#include <string.h>

enum {
	PEM_MAX = 16 << 10,
	REPLY_MAX = 64 << 10,
	TEXT_MAX = 512,
};

static int pack(const ProtobufCMessage *message, uint8_t **ret, size_t *ret_len)
{
	size_t len = protobuf_c_message_get_packed_size(message);
	uint8_t *data = malloc(len ? len : 1);

	if (!data)
		return err_origin(-ENOMEM);
	*ret_len = protobuf_c_message_pack(message, data);
	*ret = data;
	return 0;
}

static void message_freep(ProtobufCMessage **message)
{
	if (*message)
		protobuf_c_message_free_unpacked(*message, NULL);
}

static ProtobufCMessage *unpack(const ProtobufCMessageDescriptor *type, struct iovec bytes)
{
	if (bytes.iov_len > REPLY_MAX)
		return NULL;
	return protobuf_c_message_unpack(type, NULL, bytes.iov_len,
					 bytes.iov_len ? bytes.iov_base : (uint8_t *)"");
}

int membership_join_request_pack(const struct membership_join_request *request, uint8_t **ret,
				 size_t *ret_len)
{
	Ssi__Membership__JoinRequest q = SSI__MEMBERSHIP__JOIN_REQUEST__INIT;

	q.secret.data = (uint8_t *)request->secret;
	q.secret.len = TOKEN_SECRET;
	q.name = (char *)request->name;
	q.address = (char *)request->address;
	q.csr = request->csr;
	q.witness = request->witness;
	return pack(&q.base, ret, ret_len);
}

int membership_join_request_unpack(struct iovec bytes, struct membership_join_request *ret)
{
	_cleanup_(message_freep) ProtobufCMessage *message = NULL;
	struct membership_join_request request = { 0 };
	const Ssi__Membership__JoinRequest *q;

	message = unpack(&ssi__membership__join_request__descriptor, bytes);
	if (!message)
		return err_origin(-EBADMSG);
	q = (const Ssi__Membership__JoinRequest *)message;
	if (q->secret.len != TOKEN_SECRET || !membership_name_is_valid(q->name) ||
	    !membership_address_is_valid(q->address) || strlen(q->csr) > PEM_MAX)
		return err_origin(-EBADMSG);
	memcpy(request.secret, q->secret.data, TOKEN_SECRET);
	strcpy(request.name, q->name);
	strcpy(request.address, q->address);
	request.witness = q->witness;
	request.csr = strdup(q->csr);
	if (!request.csr)
		return err_origin(-ENOMEM);
	*ret = request;
	return 0;
}

void membership_join_request_fini(struct membership_join_request *request)
{
	free(TAKE(request->csr));
}

int membership_join_reply_pack(const struct membership_join_reply *reply, uint8_t **ret,
			       size_t *ret_len)
{
	Ssi__Membership__JoinReply p = SSI__MEMBERSHIP__JOIN_REPLY__INIT;

	p.status = (Ssi__Membership__JoinReply__Status)reply->status;
	p.text = reply->text;
	p.id = reply->id;
	p.cluster = reply->cluster;
	p.ca = reply->ca;
	p.cert = reply->cert;
	p.leader = reply->leader;
	p.leader_address = reply->leader_address;
	p.seal_key.data = (uint8_t *)reply->seal_key;
	p.seal_key.len = sizeof(reply->seal_key);
	return pack(&p.base, ret, ret_len);
}

static bool reply_is_valid(const Ssi__Membership__JoinReply *p)
{
	if (p->status == SSI__MEMBERSHIP__JOIN_REPLY__STATUS__ELSEWHERE)
		return membership_address_is_valid(p->leader_address);
	if (p->status != SSI__MEMBERSHIP__JOIN_REPLY__STATUS__ADMITTED)
		return strlen(p->text) < TEXT_MAX;
	return p->id && p->leader && p->cluster[0] && strlen(p->cluster) < 64 &&
	       strlen(p->ca) < PEM_MAX && strlen(p->cert) < PEM_MAX &&
	       p->seal_key.len == sizeof(((struct membership_join_reply *)0)->seal_key) &&
	       membership_address_is_valid(p->leader_address);
}

int membership_join_reply_unpack(struct iovec bytes, struct membership_join_reply *ret)
{
	_cleanup_(message_freep) ProtobufCMessage *message = NULL;
	_cleanup_(membership_join_reply_fini) struct membership_join_reply reply = { 0 };
	const Ssi__Membership__JoinReply *p;

	message = unpack(&ssi__membership__join_reply__descriptor, bytes);
	p = (const Ssi__Membership__JoinReply *)message;
	if (!p || !reply_is_valid(p))
		return err_origin(-EBADMSG);
	if (p->status <= SSI__MEMBERSHIP__JOIN_REPLY__STATUS__TAKEN)
		reply.status = (enum membership_join_status)p->status;
	reply.id = p->id;
	reply.leader = p->leader;
	if (reply.status == JOIN_ADMITTED)
		memcpy(reply.seal_key, p->seal_key.data, sizeof(reply.seal_key));
	reply.text = strdup(p->text);
	reply.cluster = strdup(p->cluster);
	reply.ca = strdup(p->ca);
	reply.cert = strdup(p->cert);
	reply.leader_address = strdup(p->leader_address);
	if (!reply.text || !reply.cluster || !reply.ca || !reply.cert || !reply.leader_address)
		return err_origin(-ENOMEM);
	*ret = reply;
	reply = (struct membership_join_reply){ 0 };
	return 0;
}

void membership_join_reply_fini(struct membership_join_reply *reply)
{
	free(reply->text);
	free(reply->cluster);
	free(reply->ca);
	free(reply->cert);
	free(reply->leader_address);
	*reply = (struct membership_join_reply){ 0 };
}
