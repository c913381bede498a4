# For CPUs, and for GPUs (torch's wheels bring CUDA's libraries; the driver is the host's):
#   docker build --tag synth2 .
#   docker build --tag synth2 --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 .
# Smaller, without CUDA: --build-arg TORCH_INDEX=URL, the index of CPU builds that PyTorch's installation page names.
# Run, with data/ and runs/ in the current folder:
#   docker run --rm --gpus all --shm-size 8g --user "$(id -u):$(id -g)" --volume "$PWD:/work" synth2 fit --config mixed.yaml
ARG BASE=python:3.12-slim
FROM ${BASE}

# Extras to install, and a further index, with builds of torch.
ARG EXTRAS=captions,codebook,lora,report
ARG TORCH_INDEX=

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN if ! command -v python3 > /dev/null; then \
      apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*; \
    fi && python3 -m venv /opt/synth2

WORKDIR /opt/source
COPY pyproject.toml README.md LICENSE ./
COPY constraints constraints
COPY configs configs
COPY src src
RUN /opt/synth2/bin/pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
      --constraint constraints/newest.txt ".[${EXTRAS}]"

# Any user may run it (--user): caches are in a folder that all can write to.
ENV PATH=/opt/synth2/bin:$PATH HOME=/tmp/home SYNTH2_CACHE=/tmp/home/synth2
RUN mkdir --mode 1777 /tmp/home
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["synth2"]
CMD ["--help"]
