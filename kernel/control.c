// SPDX-License-Identifier: GPL-2.0-or-later
/* Ioctl 32: what a session else does by itself, done now. For tests of the device as the initiator. */
#include <linux/uaccess.h>
#include "conn.h"
#include "control.h"
#include "session.h"

static_assert(sizeof(struct pool_proposal) == 24);
static_assert(offsetof(struct pool_proposal, deadline_ns) == 16);

static int propose(struct pool_session *s, const struct pool_proposal *p)
{
	const struct pool_params params = {
		.difficulty = p->difficulty,
		.heartbeat_sec = p->heartbeat_sec,
		.rekey_packets = p->rekey_packets,
		.rekey_sec = p->rekey_sec,
		.mtu_min = p->mtu_min,
		.mtu_max = p->mtu_max,
	};

	if (p->zero || pool_params_wrong(&params) || p->deadline_ns < POOL_DEADLINE_LEAST ||
	    p->deadline_ns > POOL_DEADLINE_MOST)
		return -EINVAL;
	return pool_configure_propose(s, &params, p->deadline_ns);
}

static int control_locked(struct pool_session *s, u8 op, const struct pool_proposal *proposal)
{
	switch (op) {
	case POOL_CONTROL_REKEY:
		return pool_rekey_propose(s);
	case POOL_CONTROL_PROPOSE:
		return propose(s, proposal);
	case POOL_CONTROL_CONFIRM:
		return pool_configure_confirm(s);
	case POOL_CONTROL_ROLLBACK:
		return pool_configure_rollback(s);
	case POOL_CONTROL_JOURNAL:
		return pool_replica_request(s);
	case POOL_CONTROL_EXCHANGE:
		pool_exchange_now(s);
		return 0;
	case POOL_CONTROL_CHALLENGE:
		pool_vigil_now(s);
		return 0;
	case POOL_CONTROL_PROBE:
		pool_mtu_probe_now(s);
		return 0;
	}
	return -EOPNOTSUPP;
}

int pool_control(struct pool_session *s, const struct pool_control_req *req)
{
	struct pool_proposal proposal;
	int err;

	if (req->op == POOL_CONTROL_PROPOSE) {
		if (req->len != sizeof(proposal))
			return -EINVAL;
		if (copy_from_user(&proposal, u64_to_user_ptr(req->data_ptr), sizeof(proposal)))
			return -EFAULT;
	}
	mutex_lock(&s->conn->rx_lock);
	err = s->ended ? -ENOTCONN : control_locked(s, req->op, &proposal);
	mutex_unlock(&s->conn->rx_lock);
	return err;
}
