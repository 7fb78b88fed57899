# Needs: Debian 12 or like it, Rust 1.95, gcc, python3.11. Each target says what it installs; Python packages go to .venv.
.PHONY: help test demo soak bench neon clean

help:
	@echo "make demo   the whole promise on real data: key, insert, search, key off, key on"
	@echo "make test   every check: format, lint, repository rules, Rust tests, real clients"
	@echo "make soak   the long forms of the crash and revocation tests"
	@echo "make bench  Saker beside its peers, sealed beside a null cipher, kill switch times (two hours);"
	@echo "            BENCH_MINUTES=12 the most important of it; scripts/bench.sh says more"
	@echo "make neon   the distance kernels of 64-bit ARM, under an emulator"
	@echo "make clean  removes what the above left: target, .venv, .demo"

test:
	@scripts/test.sh

demo:
	@scripts/demo.sh

soak:
	@scripts/soak.sh

bench:
	@BENCH_MINUTES="$(BENCH_MINUTES)" BENCH="$(BENCH)" scripts/bench.sh

neon:
	@scripts/neon.sh

clean:
	rm -rf target benches/target .venv .demo
