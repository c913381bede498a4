#!/usr/bin/env bash
# synth2 fit by torchrun on all GPUs of one machine:
#
#   mkdir -p my-run && cd my-run && .../torchrun.sh --config mixed.yaml
#
# Several machines: the same command on each, with NUM_NODES=4 RDZV_ENDPOINT=first-machine:29400 before it. If a process
# fails, all are restarted and the run resumes from its last checkpoint; SIGTERM saves a checkpoint.
set -euo pipefail

num_nodes=${NUM_NODES:-1}
processes=${PROCESSES:-$(nvidia-smi --list-gpus | wc -l)} # per machine

# Otherwise restarted processes read the addresses of the previous ones from torchrun's store.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

exec torchrun --nnodes="$num_nodes" --nproc-per-node="$processes" --max-restarts=3 --shutdown-timeout=120 \
  --rdzv-backend=c10d --rdzv-endpoint="${RDZV_ENDPOINT:-localhost:29400}" --no-python \
  synth2 fit "$@" --config overlays/strategy/ddp.yaml \
  --trainer.devices="$processes" --trainer.num_nodes="$num_nodes" --ckpt_path last
