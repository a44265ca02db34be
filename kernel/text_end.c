// SPDX-License-Identifier: GPL-2.0-or-later
/* Linked last: where .text ends (attest.c). */
asm(".pushsection .text, \"ax\"\n"
    ".globl pool_text_end\n"
    "pool_text_end:\n"
    ".popsection");
