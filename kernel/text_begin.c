// SPDX-License-Identifier: GPL-2.0-or-later
/* Linked first: where .text begins (attest.c). */
asm(".pushsection .text, \"ax\"\n"
    ".globl pool_text_begin\n"
    "pool_text_begin:\n"
    ".popsection");
