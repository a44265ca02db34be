// SPDX-License-Identifier: GPL-2.0-or-later
/* Linked first: where .text begins (attest.c). */
#include <linux/objtool.h>
#include <linux/stringify.h>

asm(".pushsection .text, \"ax\"\n"
    ".globl pool_text_begin\n"
    "pool_text_begin:\n"
    ANNOTATE_NOENDBR "\n"	/* nobody jumps there */
    "int3\n"
    ".popsection");
