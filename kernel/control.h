/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POOL_CONTROL_H
#define POOL_CONTROL_H

struct pool_session;
struct pool_control_req;

/* ABI-17: do what the request asks of the session; the request's result, or an error. */
int pool_control(struct pool_session *s, const struct pool_control_req *req);

#endif
