/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Included before every source when built with POOL_FAULTS=1, and only then: calls of kernel functions that can fail
 * ask pool_fault_hit() first. See faults.h.
 */
#ifndef POOL_FAULTS_WRAP_H
#define POOL_FAULTS_WRAP_H

/* All that the sources include, or the calls inside these headers would be counted as ours. */
#include <linux/fs.h>
#include <linux/igmp.h>
#include <linux/inet.h>
#include <linux/inetdevice.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/proc_fs.h>
#include <linux/random.h>
#include <linux/rtnetlink.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>
#include <crypto/algapi.h>
#include <crypto/curve25519.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/route.h>
#include <net/sock.h>

struct pool_fault_site {
	struct list_head list;
	const char *class, *file, *function;
	int line;
	bool known;
	unsigned long calls, hits;
};

bool pool_fault_hit(struct pool_fault_site *site);
void *pool_fault_allocated(void *memory);
void pool_fault_freed(const void *memory);
void pool_fault_sockets(int more);

#ifndef POOL_FAULTS_PLAIN

#define POOL_FAULT_AT(of, call) ({								\
	static struct pool_fault_site site_ = {							\
		.class = of, .file = __FILE__, .line = __LINE__, .function = call,		\
	};											\
	pool_fault_hit(&site_);									\
})

/* Some are macros in some kernels: these have to be called before the names are taken. */
static inline void *pool_plain_kmalloc(size_t size, gfp_t gfp)
{
	return kmalloc(size, gfp);
}

static inline void *pool_plain_kzalloc(size_t size, gfp_t gfp)
{
	return kzalloc(size, gfp);
}

static inline void *pool_plain_kvmalloc(size_t size, gfp_t gfp)
{
	return kvmalloc(size, gfp);
}

static inline void *pool_plain_kvzalloc(size_t size, gfp_t gfp)
{
	return kvzalloc(size, gfp);
}

static inline void *pool_plain_kcalloc(size_t n, size_t size, gfp_t gfp)
{
	return kcalloc(n, size, gfp);
}

static inline void *pool_plain_kvcalloc(size_t n, size_t size, gfp_t gfp)
{
	return kvcalloc(n, size, gfp);
}

static inline void *pool_plain_kmemdup(const void *from, size_t size, gfp_t gfp)
{
	return kmemdup(from, size, gfp);
}

static inline char *pool_plain_kstrdup(const char *text, gfp_t gfp)
{
	return kstrdup(text, gfp);
}

static inline void pool_plain_kfree(const void *memory)
{
	pool_fault_freed(memory);
	kfree(memory);
}

static inline void pool_plain_kvfree(const void *memory)
{
	pool_fault_freed(memory);
	kvfree(memory);
}

static inline void pool_plain_kfree_sensitive(const void *memory)
{
	pool_fault_freed(memory);
	kfree_sensitive(memory);
}

static inline void pool_plain_kvfree_sensitive(const void *memory, size_t size)
{
	pool_fault_freed(memory);
	kvfree_sensitive(memory, size);
}

static inline struct workqueue_struct *pool_plain_workqueue(const char *name, unsigned int flags, int most)
{
	return alloc_workqueue("%s", flags, most, name);
}

static inline unsigned long pool_plain_from_user(void *to, const void __user *from, unsigned long size)
{
	return copy_from_user(to, from, size);
}

static inline unsigned long pool_plain_to_user(void __user *to, const void *from, unsigned long size)
{
	return copy_to_user(to, from, size);
}

static inline int pool_plain_sock_create(struct net *net, int family, int type, int protocol, struct socket **sock)
{
	int err = sock_create_kern(net, family, type, protocol, sock);

	if (!err)
		pool_fault_sockets(1);
	return err;
}

static inline int pool_plain_accept(struct socket *sock, struct socket **fresh, int flags)
{
	int err = kernel_accept(sock, fresh, flags);

	if (!err)
		pool_fault_sockets(1);
	return err;
}

static inline void pool_plain_sock_release(struct socket *sock)
{
	pool_fault_sockets(-1);
	sock_release(sock);
}

#undef kmalloc
#undef kzalloc
#undef kvmalloc
#undef kvzalloc
#undef kcalloc
#undef kvcalloc
#undef kmemdup
#undef kstrdup
#undef kfree
#undef kvfree
#undef kfree_sensitive
#undef kvfree_sensitive
#undef alloc_workqueue
#undef copy_from_user
#undef copy_to_user
#undef get_user
#undef put_user

#define POOL_FAULTY(of, name, failed, plain) (POOL_FAULT_AT(of, #name) ? (failed) : (plain))
#define POOL_FAULTY_ALLOC(name, ...) \
	POOL_FAULTY("alloc", name, NULL, pool_fault_allocated(pool_plain_##name(__VA_ARGS__)))

#define kmalloc(...)		POOL_FAULTY_ALLOC(kmalloc, __VA_ARGS__)
#define kzalloc(...)		POOL_FAULTY_ALLOC(kzalloc, __VA_ARGS__)
#define kvmalloc(...)		POOL_FAULTY_ALLOC(kvmalloc, __VA_ARGS__)
#define kvzalloc(...)		POOL_FAULTY_ALLOC(kvzalloc, __VA_ARGS__)
#define kcalloc(...)		POOL_FAULTY_ALLOC(kcalloc, __VA_ARGS__)
#define kvcalloc(...)		POOL_FAULTY_ALLOC(kvcalloc, __VA_ARGS__)
#define kmemdup(...)		POOL_FAULTY_ALLOC(kmemdup, __VA_ARGS__)
#define kstrdup(...)		POOL_FAULTY_ALLOC(kstrdup, __VA_ARGS__)
#define kfree(p)		pool_plain_kfree(p)
#define kvfree(p)		pool_plain_kvfree(p)
#define kfree_sensitive(p)	pool_plain_kfree_sensitive(p)
#define kvfree_sensitive(p, n)	pool_plain_kvfree_sensitive(p, n)

#define curve25519(...)			POOL_FAULTY("crypto", curve25519, false, curve25519(__VA_ARGS__))
#define curve25519_generate_public(...) \
	POOL_FAULTY("crypto", curve25519_generate_public, false, curve25519_generate_public(__VA_ARGS__))
#define crypto_memneq(...)		POOL_FAULTY("crypto", crypto_memneq, 1UL, crypto_memneq(__VA_ARGS__))

#define sock_create_kern(...)	POOL_FAULTY("socket", sock_create_kern, -ENFILE, pool_plain_sock_create(__VA_ARGS__))
#define sock_release(s)		pool_plain_sock_release(s)
#define kernel_bind(...)	POOL_FAULTY("socket", kernel_bind, -EADDRINUSE, kernel_bind(__VA_ARGS__))
#define kernel_listen(...)	POOL_FAULTY("socket", kernel_listen, -EADDRINUSE, kernel_listen(__VA_ARGS__))
#define kernel_connect(...)	POOL_FAULTY("socket", kernel_connect, -ENETUNREACH, kernel_connect(__VA_ARGS__))
#define kernel_accept(...)	POOL_FAULTY("socket", kernel_accept, -ECONNABORTED, pool_plain_accept(__VA_ARGS__))
#define kernel_sendmsg(...)	POOL_FAULTY("socket", kernel_sendmsg, -ENOBUFS, kernel_sendmsg(__VA_ARGS__))
#define kernel_recvmsg(...)	POOL_FAULTY("socket", kernel_recvmsg, -ENOBUFS, kernel_recvmsg(__VA_ARGS__))
#define kernel_getpeername(...) \
	POOL_FAULTY("socket", kernel_getpeername, -ENOTCONN, kernel_getpeername(__VA_ARGS__))

#define misc_register(...)	POOL_FAULTY("register", misc_register, -EBUSY, misc_register(__VA_ARGS__))
#define proc_mkdir(...)		POOL_FAULTY("register", proc_mkdir, NULL, proc_mkdir(__VA_ARGS__))
#define proc_create_single_data(...) \
	POOL_FAULTY("register", proc_create_single, NULL, proc_create_single_data(__VA_ARGS__))
#define proc_create_seq_private(...) \
	POOL_FAULTY("register", proc_create_seq, NULL, proc_create_seq_private(__VA_ARGS__))
#define alloc_workqueue(...)	POOL_FAULTY("register", alloc_workqueue, NULL, pool_plain_workqueue(__VA_ARGS__))

#define wait_for_random_bytes()	POOL_FAULTY("random", wait_for_random_bytes, -EIO, wait_for_random_bytes())

#define copy_from_user(to, from, size) \
	POOL_FAULTY("copy", copy_from_user, (unsigned long)(size), pool_plain_from_user(to, from, size))
#define copy_to_user(to, from, size) \
	POOL_FAULTY("copy", copy_to_user, (unsigned long)(size), pool_plain_to_user(to, from, size))
#define get_user(value, from) \
	POOL_FAULTY("copy", get_user, -EFAULT, pool_plain_from_user(&(value), from, sizeof(value)) ? -EFAULT : 0)
#define put_user(value, to) ({								\
	typeof(*(to)) value_ = (value);							\
	POOL_FAULTY("copy", put_user, -EFAULT,						\
		    pool_plain_to_user(to, &value_, sizeof(value_)) ? -EFAULT : 0);	\
})

#endif
#endif
