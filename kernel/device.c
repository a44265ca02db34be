// SPDX-License-Identifier: GPL-2.0-or-later
/* /dev/pool: an open file pins the module, so no ioctl runs while it unloads. */
#include <linux/fs.h>
#include <linux/ipv6.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <net/ipv6.h>
#include "conn.h"
#include "connect.h"
#include "control.h"
#include "device.h"
#include "faults.h"
#include "session.h"

#define ABI_SIZE(type, size) static_assert(sizeof(type) == (size))
#define ABI_FIELD(type, field, offset) static_assert(offsetof(type, field) == (offset))
ABI_SIZE(struct pool_connect_req, 24);
ABI_FIELD(struct pool_connect_req, peer_port, 16);
ABI_FIELD(struct pool_connect_req, addr_family, 18);
ABI_FIELD(struct pool_connect_req, pool_version, 19);
ABI_SIZE(struct pool_data_req, 24);
ABI_FIELD(struct pool_data_req, channel, 4);
ABI_FIELD(struct pool_data_req, len, 8);
ABI_FIELD(struct pool_data_req, data_ptr, 16);
ABI_SIZE(struct pool_telemetry, 44);
ABI_SIZE(struct pool_session_info, 120);
ABI_FIELD(struct pool_session_info, peer_addr, 4);
ABI_FIELD(struct pool_session_info, peer_port, 20);
ABI_FIELD(struct pool_session_info, addr_family, 22);
ABI_FIELD(struct pool_session_info, state, 23);
ABI_FIELD(struct pool_session_info, session_id, 24);
ABI_FIELD(struct pool_session_info, bytes_sent, 40);
ABI_FIELD(struct pool_session_info, packets_recv, 64);
ABI_FIELD(struct pool_session_info, rekey_count, 72);
ABI_FIELD(struct pool_session_info, telemetry, 76);
ABI_SIZE(struct pool_session_list, 16);
ABI_FIELD(struct pool_session_list, info_ptr, 8);
ABI_SIZE(struct pool_channel_req, 24);
ABI_FIELD(struct pool_channel_req, operation, 5);
ABI_FIELD(struct pool_channel_req, result, 8);
ABI_FIELD(struct pool_channel_req, data_ptr, 16);
ABI_SIZE(struct pool_control_req, 24);
ABI_FIELD(struct pool_control_req, len, 8);
ABI_FIELD(struct pool_control_req, result, 12);
ABI_FIELD(struct pool_control_req, data_ptr, 16);

/* The established session at that index, with a reference. */
static struct pool_session *get_active(u32 index)
{
	struct pool_session *s;

	if (index >= POOL_MAX_SESSIONS)
		return ERR_PTR(-EINVAL);
	s = pool_session_find(index);
	if (!s)
		return ERR_PTR(-ENOTCONN);
	if (!pool_session_active(s)) {
		pool_session_put(s);
		return ERR_PTR(-ENOTCONN);
	}
	return s;
}

static long do_listen(void __user *arg)
{
	u16 port;

	if (get_user(port, (u16 __user *)arg))
		return -EFAULT;
	return pool_listener_start(port);
}

static long do_connect(void __user *arg)
{
	struct pool_connect_req req;
	struct in6_addr peer;

	if (copy_from_user(&req, arg, sizeof(req)))
		return -EFAULT;
	if (memchr_inv(req.reserved, 0, sizeof(req.reserved)) || !req.peer_port || req.pool_version > 2)
		return -EINVAL;
	if (req.pool_version && req.pool_version != POOL_VERSION)
		return -EPROTONOSUPPORT;
	memcpy(&peer, req.peer_addr, sizeof(peer));
	switch (req.addr_family) {
	case AF_INET:
		if (!ipv6_addr_v4mapped(&peer))
			return -EINVAL;
		break;
	case AF_INET6:
		break;
	default:
		return -EAFNOSUPPORT;
	}
	return pool_connect(&peer, req.peer_port);
}

static long do_send(struct file *file, void __user *arg)
{
	struct pool_data_req req;
	struct pool_session *s;
	long err;

	if (copy_from_user(&req, arg, sizeof(req)))
		return -EFAULT;
	if (req.flags || req.reserved || !req.len)
		return -EINVAL;
	if (req.len > POOL_MESSAGE_MAX)
		return -EMSGSIZE;
	s = get_active(req.session_idx);
	if (IS_ERR(s))
		return PTR_ERR(s);
	err = pool_send_message(s, req.channel, u64_to_user_ptr(req.data_ptr), req.len,
				file->f_flags & O_NONBLOCK);
	pool_session_put(s);
	return err;
}

static long do_recv(struct file *file, void __user *arg)
{
	struct pool_data_req req;
	struct pool_session *s;
	long err;

	if (copy_from_user(&req, arg, sizeof(req)))
		return -EFAULT;
	if (req.flags || req.reserved || req.session_idx >= POOL_MAX_SESSIONS)
		return -EINVAL;
	/* A session that has ended may still hold messages. */
	s = pool_session_find(req.session_idx);
	if (!s)
		return -ENOTCONN;
	if (READ_ONCE(s->state) < POOL_ESTABLISHED)
		err = -ENOTCONN;
	else
		err = pool_recv_message(s, &req.channel, u64_to_user_ptr(req.data_ptr), &req.len,
					file->f_flags & O_NONBLOCK);
	pool_session_put(s);
	if ((!err || err == -EMSGSIZE) && copy_to_user(arg, &req, sizeof(req)))
		return -EFAULT;
	return err;
}

static long do_sessions(void __user *arg)
{
	struct pool_session_list __user *ulist = arg;
	struct pool_session_list list;
	struct pool_session_info info;
	struct pool_session_info __user *out;
	struct pool_session *s;
	u32 i;

	if (copy_from_user(&list, ulist, sizeof(list)))
		return -EFAULT;
	out = u64_to_user_ptr(list.info_ptr);
	list.count = 0;
	for (i = 0; i < POOL_MAX_SESSIONS && list.count < list.max_sessions; i++) {
		s = pool_session_find(i);
		if (!s)
			continue;
		pool_session_info(s, &info);
		pool_session_put(s);
		if (copy_to_user(&out[list.count++], &info, sizeof(info)))
			return -EFAULT;
	}
	return put_user(list.count, &ulist->count);
}

static long do_close(void __user *arg)
{
	struct pool_session *s;
	u32 index;

	if (get_user(index, (u32 __user *)arg))
		return -EFAULT;
	s = get_active(index);
	if (IS_ERR(s))
		return PTR_ERR(s);
	/* What a rekey holds back goes out first, if that ends soon (E-98); over raw IP parting sees to that. */
	if (!s->rel)
		wait_event_interruptible_timeout(s->conn->tx_wait,
						 !READ_ONCE(s->held_count) || READ_ONCE(s->ended), 5 * HZ);
	pool_session_end(s, POOL_CLOSE_EMPTY, "closed here");
	pool_session_put(s);
	return 0;
}

static void list_channels(const struct pool_session *s, u8 out[POOL_CHANNELS / 8])
{
	int c;

	memset(out, 0, POOL_CHANNELS / 8);
	for_each_set_bit(c, s->subscribed, POOL_CHANNELS)
		out[c / 8] |= 1 << c % 8;
}

static long do_channel(void __user *arg)
{
	u8 bitmap[POOL_CHANNELS / 8];
	struct pool_channel_req req;
	struct pool_session *s;
	long err = 0;

	if (copy_from_user(&req, arg, sizeof(req)))
		return -EFAULT;
	if (req.reserved || req.operation < POOL_CHANNEL_SUBSCRIBE || req.operation > POOL_CHANNEL_LIST)
		return -EINVAL;
	s = get_active(req.session_idx);
	if (IS_ERR(s))
		return PTR_ERR(s) == -ENOTCONN ? -ENOENT : PTR_ERR(s);
	switch (req.operation) {
	case POOL_CHANNEL_SUBSCRIBE:
		set_bit(req.channel, s->subscribed);
		break;
	case POOL_CHANNEL_UNSUBSCRIBE:
		clear_bit(req.channel, s->subscribed);
		break;
	case POOL_CHANNEL_LIST:
		list_channels(s, bitmap);
		if (copy_to_user(u64_to_user_ptr(req.data_ptr), bitmap, sizeof(bitmap)))
			err = -EFAULT;
		break;
	}
	req.result = bitmap_weight(s->subscribed, POOL_CHANNELS);
	pool_session_put(s);
	if (!err && copy_to_user(arg, &req, sizeof(req)))
		err = -EFAULT;
	return err;
}

static long do_control(void __user *arg)
{
	struct pool_control_req req;
	struct pool_session *s;
	long err;

	if (copy_from_user(&req, arg, sizeof(req)))
		return -EFAULT;
	if (memchr_inv(req.reserved, 0, sizeof(req.reserved)) || req.op < POOL_CONTROL_REKEY ||
	    req.op > POOL_CONTROL_PROBE)
		return -EINVAL;
	s = get_active(req.session_idx);
	if (IS_ERR(s))
		return PTR_ERR(s);
	err = pool_control(s, &req);
	pool_session_put(s);
	if (err < 0)
		return err;
	req.result = err;
	return copy_to_user(arg, &req, sizeof(req)) ? -EFAULT : 0;
}

static long pool_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *uarg = (void __user *)arg;

	switch (cmd) {
	case POOL_IOC_LISTEN:
		return do_listen(uarg);
	case POOL_IOC_CONNECT:
		return do_connect(uarg);
	case POOL_IOC_SEND:
		return do_send(file, uarg);
	case POOL_IOC_RECV:
		return do_recv(file, uarg);
	case POOL_IOC_SESSIONS:
		return do_sessions(uarg);
	case POOL_IOC_CLOSE_SESS:
		return do_close(uarg);
	case POOL_IOC_STOP:
		pool_listener_stop();
		return 0;
	case POOL_IOC_CHANNEL:
		return do_channel(uarg);
	case POOL_IOC_CONTROL:
		return do_control(uarg);
	}
	return -ENOTTY;
}

static const struct file_operations pool_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = pool_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice pool_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "pool",
	.mode = 0600,
	.fops = &pool_fops,
};

int pool_device_init(void)
{
	if (pool_fault("chrdev"))
		return -EBUSY;
	return misc_register(&pool_misc);
}

void pool_device_exit(void)
{
	misc_deregister(&pool_misc);
}
