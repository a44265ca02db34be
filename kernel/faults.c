// SPDX-License-Identifier: GPL-2.0-or-later
/* The calls that fail because a test wants it: faults.h says how to ask, faults_wrap.h which calls. */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include "faults.h"

#define POINT_MAX 64

char pool_fault_wanted[32];
module_param_string(fault, pool_fault_wanted, sizeof(pool_fault_wanted), 0400);
MODULE_PARM_DESC(fault, "make this fail, for tests: selftest:NAME, random, chrdev, proc, multicast, announce or counters");

static char point[POINT_MAX];
static u32 nth = 1, times = 1;
module_param_string(fault_point, point, sizeof(point), 0400);
MODULE_PARM_DESC(fault_point, "make these calls fail, for tests: a class, FILE:LINE or FILE:FUNCTION");
module_param_named(fault_nth, nth, uint, 0400);
MODULE_PARM_DESC(fault_nth, "the first of these calls to fail, from 1");
module_param_named(fault_times, times, uint, 0400);
MODULE_PARM_DESC(fault_times, "how many of these calls fail, 0: all");

/* Guards all below; calls come from anywhere, sites stay where they are once known. */
static DEFINE_SPINLOCK(lock);
static LIST_HEAD(sites);
static u32 seen, hits;

static atomic_long_t live_memory, live_sockets;
static struct dentry *dir;

static bool wanted(const struct pool_fault_site *site)
{
	const char *file = kbasename(site->file);
	size_t len = strlen(file);
	char line[16];

	if (!strcmp(point, site->class))
		return true;
	if (strncmp(point, file, len) || point[len] != ':')
		return false;
	snprintf(line, sizeof(line), "%d", site->line);
	return !strcmp(point + len + 1, line) || !strcmp(point + len + 1, site->function);
}

bool pool_fault_hit(struct pool_fault_site *site)
{
	unsigned long flags;
	bool hit = false;

	spin_lock_irqsave(&lock, flags);
	if (!site->known) {
		site->known = true;
		list_add_tail(&site->list, &sites);
	}
	site->calls++;
	if (wanted(site)) {
		seen++;
		hit = seen >= nth && (!times || seen - nth < times);
		hits += hit;
		site->hits += hit;
	}
	spin_unlock_irqrestore(&lock, flags);
	if (hit)
		pr_info("pool: fault at %s:%d %s\n", kbasename(site->file), site->line, site->function);
	return hit;
}

void *pool_fault_allocated(void *memory)
{
	if (memory)
		atomic_long_inc(&live_memory);
	return memory;
}

void pool_fault_freed(const void *memory)
{
	if (memory)
		atomic_long_dec(&live_memory);
}

void pool_fault_sockets(int more)
{
	atomic_long_add(more, &live_sockets);
}

static ssize_t point_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	char copy[POINT_MAX];

	spin_lock_irq(&lock);
	strscpy(copy, point, sizeof(copy));
	spin_unlock_irq(&lock);
	return simple_read_from_buffer(to, size, pos, copy, strlen(copy));
}

static ssize_t point_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	char copy[POINT_MAX];

	if (*pos || size >= sizeof(copy))
		return -EINVAL;
	if (copy_from_user(copy, from, size))
		return -EFAULT;
	copy[size] = '\0';
	spin_lock_irq(&lock);
	strscpy(point, strim(copy), sizeof(point));
	seen = 0;
	hits = 0;
	spin_unlock_irq(&lock);
	return size;
}

static const struct file_operations point_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = point_read,
	.write = point_write,
	.llseek = default_llseek,
};

static int sites_show(struct seq_file *m, void *v)
{
	struct pool_fault_site *site;

	spin_lock_irq(&lock);
	list_for_each_entry(site, &sites, list)
		seq_printf(m, "%s %s:%d %s %lu %lu\n", site->class, kbasename(site->file), site->line,
			   site->function, site->calls, site->hits);
	spin_unlock_irq(&lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(sites);

static int live_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%ld %ld\n", atomic_long_read(&live_memory), atomic_long_read(&live_sockets));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(live);

static void report(void)
{
	pr_info("pool: %ld allocations and %ld sockets left\n", atomic_long_read(&live_memory),
		atomic_long_read(&live_sockets));
}

int pool_faults_loaded(int err)
{
	if (err) {
		report();
		return err;
	}
	/* Without debugfs there are the parameters. */
	dir = debugfs_create_dir("pool_faults", NULL);
	debugfs_create_file("point", 0600, dir, NULL, &point_fops);
	debugfs_create_u32("nth", 0600, dir, &nth);
	debugfs_create_u32("times", 0600, dir, &times);
	debugfs_create_u32("hits", 0400, dir, &hits);
	debugfs_create_file("sites", 0400, dir, NULL, &sites_fops);
	debugfs_create_file("live", 0400, dir, NULL, &live_fops);
	return 0;
}

void pool_faults_unloaded(void)
{
	debugfs_remove(dir);
	report();
}
