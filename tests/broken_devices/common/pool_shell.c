// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One thread accepts connections and reads packets, one connection after the other.
 *
 * shell_lock guards the variables below it. The thread takes it only to publish and to withdraw the connection that
 * it serves, so stopping can shut that connection down and never waits for a silent client.
 */
#include <linux/in6.h>
#include <linux/ioctl.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/task.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#include "pool_shell.h"

struct connect_req {
	u8 peer_addr[16];
	u16 peer_port;
	u8 addr_family;
	u8 pool_version;
	u8 reserved[4];
};

struct data_req {
	u32 session_idx;
	u8 channel;
	u8 flags;
	u16 reserved;
	u32 len;
	u64 data_ptr;
};

struct session_list {
	u32 count;
	u32 max_sessions;
	u64 info_ptr;
};

struct channel_req {
	u32 session_idx;
	u8 channel;
	u8 operation;
	u16 reserved;
	u32 result;
	u64 data_ptr;
};

#define POOL_LISTEN _IOW('P', 1, u16)
#define POOL_CONNECT _IOW('P', 2, struct connect_req)
#define POOL_SEND _IOW('P', 3, struct data_req)
#define POOL_RECV _IOWR('P', 4, struct data_req)
#define POOL_SESSIONS _IOWR('P', 5, struct session_list)
#define POOL_CLOSE_SESS _IOW('P', 6, u32)
#define POOL_STOP _IO('P', 7)
#define POOL_CHANNEL _IOWR('P', 8, struct channel_req)

static const struct pool_shell_ops *shell_ops;
static u8 *packet_buffer; /* the thread's */

static DEFINE_MUTEX(shell_lock);
static struct socket *listener; /* NULL: not listening */
static struct socket *client;	/* being served by the thread */
static struct task_struct *thread;
static bool stopping;

/* 1: got all of it, 0: the stream ended before, negative: errno */
static int receive(struct socket *sock, u8 *to, size_t size)
{
	struct msghdr msg = {};
	struct kvec part = { .iov_base = to, .iov_len = size };
	int got = kernel_recvmsg(sock, &msg, &part, 1, size, MSG_WAITALL);

	return got < 0 ? got : (size_t)got == size;
}

int pool_shell_send(struct socket *sock, const void *data, size_t size)
{
	struct msghdr msg = { .msg_flags = MSG_NOSIGNAL };
	struct kvec part = { .iov_base = (void *)data, .iov_len = size };
	int sent = kernel_sendmsg(sock, &msg, &part, 1, size);

	return sent < 0 ? sent : 0;
}

static void serve(struct socket *sock)
{
	for (;;) {
		size_t size;

		if (receive(sock, packet_buffer, POOL_HEADER_SIZE) <= 0)
			return;
		size = packet_buffer[44] << 8 | packet_buffer[45];
		if (size && receive(sock, packet_buffer + POOL_HEADER_SIZE, size) <= 0)
			return;
		size += POOL_HEADER_SIZE;
		if (shell_ops->packet && shell_ops->packet(sock, packet_buffer, size) < 0)
			return;
	}
}

static bool publish(struct socket *sock)
{
	bool serving;

	mutex_lock(&shell_lock);
	serving = !stopping;
	client = serving ? sock : NULL;
	mutex_unlock(&shell_lock);
	return serving;
}

static int listen_thread(void *from)
{
	struct socket *accepted;

	while (kernel_accept(from, &accepted, 0) == 0) {
		if (publish(accepted))
			serve(accepted);
		publish(NULL);
		sock_release(accepted);
	}
	return 0;
}

static int start_listening(u16 port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct task_struct *task;
	struct socket *sock;
	int err;

	if (!port)
		return -EINVAL;
	if (listener)
		return -EALREADY;
	err = sock_create_kern(&init_net, AF_INET6, SOCK_STREAM, IPPROTO_TCP, &sock);
	if (err < 0)
		return err;
	sock_set_reuseaddr(sock->sk);
	/* a void pointer, because the sockaddr type that kernel_bind takes differs between kernels */
	err = kernel_bind(sock, (void *)&any, sizeof(any));
	if (!err)
		err = kernel_listen(sock, 64);
	if (err)
		goto release;
	task = kthread_create(listen_thread, sock, "pool-shell");
	if (IS_ERR(task)) {
		err = PTR_ERR(task);
		goto release;
	}
	get_task_struct(task); /* it may end by itself before it is stopped */
	stopping = false;
	listener = sock;
	thread = task;
	wake_up_process(task);
	return 0;
release:
	sock_release(sock);
	return err;
}

static void stop_listening(void)
{
	mutex_lock(&shell_lock);
	if (!listener || stopping) {
		mutex_unlock(&shell_lock);
		return;
	}
	stopping = true;
	kernel_sock_shutdown(listener, SHUT_RDWR);
	if (client)
		kernel_sock_shutdown(client, SHUT_RDWR);
	mutex_unlock(&shell_lock);

	kthread_stop(thread);
	put_task_struct(thread);

	mutex_lock(&shell_lock);
	sock_release(listener);
	listener = NULL;
	mutex_unlock(&shell_lock);
}

static long listen_ioctl(void __user *arg)
{
	u16 port;
	long err;

	if (copy_from_user(&port, arg, sizeof(port)))
		return -EFAULT;
	mutex_lock(&shell_lock);
	err = start_listening(port);
	mutex_unlock(&shell_lock);
	return err;
}

static long connect_ioctl(void __user *arg)
{
	struct connect_req req;

	if (copy_from_user(&req, arg, sizeof(req)))
		return -EFAULT;
	return shell_ops->connect ? shell_ops->connect() : -EOPNOTSUPP;
}

static long sessions_ioctl(void __user *arg)
{
	struct session_list list;

	if (copy_from_user(&list, arg, sizeof(list)))
		return -EFAULT;
	list.count = 0;
	return copy_to_user(arg, &list, sizeof(list)) ? -EFAULT : 0;
}

static long shell_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	switch (command) {
	case POOL_LISTEN:
		return listen_ioctl((void __user *)arg);
	case POOL_STOP:
		stop_listening();
		return 0;
	case POOL_CONNECT:
		return connect_ioctl((void __user *)arg);
	case POOL_SESSIONS:
		return sessions_ioctl((void __user *)arg);
	case POOL_SEND:
	case POOL_RECV:
	case POOL_CLOSE_SESS:
	case POOL_CHANNEL:
		return -EINVAL; /* there never is a session with that index */
	default:
		return -ENOTTY;
	}
}

static const struct file_operations shell_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = shell_ioctl,
};

static struct miscdevice shell_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "pool",
	.fops = &shell_fops,
	.mode = 0600,
};

int pool_shell_start(const struct pool_shell_ops *ops)
{
	int err;

	shell_ops = ops;
	packet_buffer = vmalloc(POOL_MAX_PACKET);
	if (!packet_buffer)
		return -ENOMEM;
	err = misc_register(&shell_device);
	if (err)
		vfree(packet_buffer);
	return err;
}

void pool_shell_stop(void)
{
	misc_deregister(&shell_device);
	stop_listening();
	vfree(packet_buffer);
}
