# SPDX-License-Identifier: GPL-2.0-or-later
# make conformance            test the shipped pool.ko in a pair of VMs, write a report
#      DEVICE=reference       the reference implementation instead: no VM, seconds
#      POOL_SRC=DIR           your module's source directory      POOL_KO=FILE   your built module
#      KERNEL=NAME            a kernel of vm_images/kernels.toml   KERNEL_IMAGE=FILE KERNEL_BUILD=DIR   your own kernel
#      KERNEL_CMDLINE='slub_debug=FZPU'              more boot parameters for the guests
#      TAGS=EXPR ONLY=TEXT    select scenarios    SEED=N   repeat a run    OFFLINE=1   touch no network
# make test                   the fast suite     make lint   ruff, mypy, import rules
# make coverage               the fast suite with the reference's branch coverage
# make mutants                break the reference on purpose, once for each requirement at least: who notices?
# make test-vm                the tests that boot virtual machines (the lab, images, broken devices): minutes
# make bench                  benchmarks: the reference against bare loops and aioquic, the lab's times
#      BENCH='node idle'      only some of: reference node idle lab
# make scapy                  scapy's shell with the POOL layers     KEYLOG=FILE   decrypt with a key log
# make deb                    the Debian package of the module (DKMS) into build/deb
# make prefetch               fetch and build all that an offline run needs

VENV := .venv/bin
export DEVICE POOL_SRC POOL_KO KERNEL KERNEL_IMAGE KERNEL_BUILD KERNEL_CMDLINE TAGS ONLY SEED OFFLINE REPORT_DIR

.PHONY: conformance test coverage mutants test-vm lint prefetch bench scapy deb clean
conformance:
	@harness/bootstrap.sh $(if $(filter reference,$(DEVICE)),reference,conformance)
	@$(VENV)/poolproof conformance

test:
	@harness/bootstrap.sh test
	@$(VENV)/python -m pytest -n auto

coverage:
	@harness/bootstrap.sh test
	@$(VENV)/python -m pytest -n auto --cov --cov-report=term-missing:skip-covered --cov-fail-under=95

mutants:
	@harness/bootstrap.sh test
	@$(VENV)/python tests/mutants/run.py

test-vm:
	@harness/bootstrap.sh test
	@harness/bootstrap.sh conformance
	@harness/bootstrap.sh deb
	@$(VENV)/python -m pytest -m vm tests/vm

lint:
	@harness/bootstrap.sh test
	@$(VENV)/ruff check .
	@$(VENV)/mypy
	@$(VENV)/lint-imports

prefetch:
	@harness/bootstrap.sh conformance
	@$(VENV)/poolproof prefetch

bench:
	@harness/bootstrap.sh bench
	@$(if $(filter lab,$(or $(BENCH),lab)),harness/bootstrap.sh conformance)
	@$(VENV)/python -m bench $(BENCH)

deb:
	@harness/bootstrap.sh deb
	@kernel/debian/build.sh build/deb

scapy:
	@harness/bootstrap.sh test
	@$(VENV)/python -m scapy_pool $(if $(KEYLOG),--keylog '$(KEYLOG)')

clean:
	rm -rf build reports/runs reports/latest .venv .venv.lock .mypy_cache .ruff_cache .pytest_cache
