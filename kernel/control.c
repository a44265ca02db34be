// SPDX-License-Identifier: GPL-2.0-or-later
/* Ioctl 32: what a session else does by itself, done now. For tests of the device as the initiator. */
#include "conn.h"
#include "control.h"
#include "session.h"

int pool_control(struct pool_session *s, const struct pool_control_req *req)
{
	int err;

	mutex_lock(&s->conn->rx_lock);
	switch (s->ended ? 0 : req->op) {
	case 0:
		err = s->ended ? -ENOTCONN : -EINVAL;
		break;
	case POOL_CONTROL_REKEY:
		err = pool_rekey_propose(s);
		break;
	default:
		err = -EINVAL;
		break;
	}
	mutex_unlock(&s->conn->rx_lock);
	return err;
}
