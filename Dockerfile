# The environment of finetrail, without its code: a clone is mounted at /work, so that no edit builds the image again.
# docs/installing.md says how it is used.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm

# DVC needs Git. Debian keeps one version of a package only, so none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

# `docker run --user` may name a user that the image does not know: DVC and torch then ask HOME and USER.
RUN useradd --create-home --uid 1000 finetrail \
    && chmod 777 /home/finetrail \
    && install --directory --owner finetrail /opt/venv /work
# make takes the environment of VENV; the clone's .venv is the host's.
ENV HOME=/home/finetrail USER=finetrail VENV=/opt/venv PATH=/opt/venv/bin:$PATH
USER 1000
WORKDIR /opt/setup

# cpu: the build of PyTorch's own index. cuda: the build that the lock file brings on Linux.
ARG TORCH=cpu
COPY requirements.lock requirements-cuda.lock setup.sh ./
ENV PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv \
    && case "$TORCH" in \
        cpu) pip install --no-deps --index-url https://download.pytorch.org/whl/cpu \
            "$(grep --only-matching '^torch==[0-9.]*' requirements.lock)" ;; \
        cuda) ;; \
        *) echo "error: TORCH is $TORCH; expected cpu or cuda" >&2; exit 1 ;; \
    esac \
    && bash setup.sh

WORKDIR /work
CMD ["bash"]
