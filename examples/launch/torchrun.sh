#!/usr/bin/env bash
# One machine, all its GPUs:
#
#   mkdir -p my-run && cd my-run && .../torchrun.sh --config mixed.yaml
#
# Several machines: the same command on each, with NUM_NODES=4 MEET_AT=first-machine:29400 before it.
# Where a process dies, all are started again, and the run goes on from its last checkpoint; SIGTERM saves one.
set -euo pipefail

num_nodes=${NUM_NODES:-1}
processes=${PROCESSES:-$(nvidia-smi --list-gpus | wc -l)} # per machine

# Else processes that are started again read the addresses of those before them in the store that torchrun keeps.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

exec torchrun --nnodes="$num_nodes" --nproc-per-node="$processes" --max-restarts=3 --shutdown-timeout=120 \
  --rdzv-backend=c10d --rdzv-endpoint="${MEET_AT:-localhost:29400}" --no-python \
  synth2 fit "$@" --config overlays/ddp.yaml \
  --trainer.devices="$processes" --trainer.num_nodes="$num_nodes" --ckpt_path last
